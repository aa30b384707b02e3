// Placeorder stores an order and tells others about it, or does neither.
//
//	placeorder ORDER_ID ITEM PIECES
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

type order struct {
	ID     string `json:"id"`
	Item   string `json:"item"`
	Pieces int    `json:"pieces"`
}

func place(ctx context.Context, conn *pgx.Conn, o order, traceparent string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into orders (id, item, pieces) values ($1, $2, $3)`, o.ID, o.Item, o.Pieces); err != nil {
			return err
		}
		const publish = `select amqp.publish(1, 'shop', 'order.placed', $1::jsonb, headers => $2::jsonb, message_id => $3)`
		headers := map[string]string{"traceparent": traceparent}
		if _, err := tx.Exec(ctx, publish, o, headers, "order-placed-"+o.ID); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update stock set pieces = pieces - $1 where item = $2`, o.Pieces, o.Item)
		return err // an error rolls back, and the message is never sent
	})
}

func run(ctx context.Context) error {
	pieces, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return place(ctx, conn, order{ID: os.Args[1], Item: os.Args[2], Pieces: pieces}, os.Getenv("TRACEPARENT"))
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
