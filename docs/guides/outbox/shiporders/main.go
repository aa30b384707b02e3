// Shiporders takes messages about orders and makes one shipment of each, however often a message comes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

func ship(ctx context.Context, conn *pgx.Conn, d amqp.Delivery) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		first, err := tx.Exec(ctx, `insert into handled (message_id) values ($1) on conflict do nothing`, d.MessageId)
		if err != nil || first.RowsAffected() == 0 { // it has come before
			return err
		}
		_, err = tx.Exec(ctx, `insert into shipments (order_id) select ($1::jsonb ->> 'id')::uuid`, json.RawMessage(d.Body))
		return err
	})
}

func run(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	broker, err := amqp.Dial(os.Getenv("BROKER_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = broker.Close() }()
	channel, err := broker.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(10, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.Consume("shipping", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries {
		if err := ship(ctx, conn, d); err != nil {
			return err // without an ack it comes again
		}
		if err := d.Ack(false); err != nil { // after the commit
			return err
		}
	}
	return errors.New("the broker is gone")
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) // whoever supervises it starts it again
	}
}
