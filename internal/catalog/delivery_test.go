package catalog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// confirmAll confirms whatever comes, as a daemon does whose brokers are quick. When
// nothing comes it asks for the server's position and confirms that.
func confirmAll(ctx context.Context, stream *pgconn.PgConn) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		message, err := stream.ReceiveMessage(quiet)
		cancel()
		if pgconn.Timeout(err) && ctx.Err() == nil {
			err = pglogrepl.SendStandbyStatusUpdate(ctx, stream, pglogrepl.StandbyStatusUpdate{WALWritePosition: 1, ReplyRequested: true})
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		data, ok := message.(*pgproto3.CopyData)
		if !ok {
			continue
		}
		position, err := endOf(data.Data)
		if err != nil {
			return err
		}
		if position == 0 {
			continue
		}
		err = pglogrepl.SendStandbyStatusUpdate(ctx, stream, pglogrepl.StandbyStatusUpdate{WALWritePosition: position, WALFlushPosition: position})
		if err != nil {
			return err
		}
	}
}

// endOf returns the position that may be confirmed after a frame, 0 if it ends nothing.
func endOf(frame []byte) (pglogrepl.LSN, error) {
	if frame[0] == pglogrepl.PrimaryKeepaliveMessageByteID {
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(frame[1:])
		return k.ServerWALEnd, err
	}
	x, err := pglogrepl.ParseXLogData(frame[1:])
	if err != nil {
		return 0, err
	}
	switch {
	case x.WALData[0] == 'C':
		var commit pglogrepl.CommitMessage
		err := commit.Decode(x.WALData[1:])
		return commit.TransactionEndLSN, err
	case x.WALData[0] == 'M' && x.WALData[1] == 0: // outside a transaction
		return x.WALStart, nil
	}
	return 0, nil
}

func TestWaitDeliveredReturnsWhenTheSlotHasMoved(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
		stream := walsender(t, p, name, name, "pgamqp")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- confirmAll(ctx, stream) }()
		for _, call := range []string{
			`select amqp.publish(1, 'ex', 'k', 'm')`,
			`set synchronous_commit = off`, // and what follows
			`select amqp.publish(1, 'ex', 'k', 'm')`,
			`select amqp.autonomous_publish(1, 'ex', 'k', 'm')`,
			// Something behind the last commit that nothing writes to the disk.
			`select pg_logical_emit_message(false, 'other', 'm')`,
		} {
			exec(t, conn, call)
			start := time.Now()
			if !value[bool](t, conn, `select amqp.wait_delivered(timeout => '15s')`) {
				t.Fatalf("after %q not delivered in 15 s", call)
			}
			t.Logf("after %q it took %v", call, time.Since(start))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWaitDeliveredWarnsOfItsOwnTransaction(t *testing.T) {
	p := server(t, 15)
	_, name := installed(t, p)
	config, err := pgx.ParseConfig(p.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Severity+" "+n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	exec(t, conn, `select amqp.wait_delivered('0/1')`)
	if len(notices) != 0 {
		t.Errorf("without a transaction: %q", notices)
	}
	exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
	exec(t, conn, `begin`)
	exec(t, conn, `select amqp.publish(1, 'ex', 'k', 'm')`)
	exec(t, conn, `select amqp.wait_delivered('0/1')`)
	exec(t, conn, `rollback`)
	if len(notices) != 1 || !strings.Contains(notices[0], "WARNING amqp.wait_delivered does not wait for messages of its own transaction") {
		t.Errorf("inside a transaction: %q", notices)
	}
}

// What is sent outside a transaction must not wait in memory until somebody commits.
func TestP34AndP35AutonomousMessagesAreFlushed(t *testing.T) {
	for _, version := range testserver.Versions {
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) {
			p := ownServer(t, version, map[string]string{"wal_writer_delay": "10s"})
			conn, _ := installed(t, p)
			exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
			for _, call := range []string{
				`amqp.autonomous_publish(1, 'ex', 'k', 'm')`, `amqp.autonomous_publish(1, 'ex', 'k', '{}'::jsonb, 2)`,
				`amqp.queue_declare(1, 'q')`, `amqp.disconnect(1)`,
			} {
				before := value[uint64](t, conn, `select pg_current_wal_insert_lsn() - '0/0'`)
				exec(t, conn, `set default_transaction_read_only = on`)
				exec(t, conn, `select `+call)
				exec(t, conn, `set default_transaction_read_only = off`)
				if value[uint64](t, conn, `select pg_current_wal_flush_lsn() - '0/0'`) <= before {
					t.Errorf("%s is not on disk", call)
				}
			}
		})
	}
}

// Whoever adds brokers at the same time must not meet in the list that publish looks at.
func TestBrokersCanBeAddedAtTheSameTime(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		const writers, each = 4, 10
		var all sync.WaitGroup
		for w := range writers {
			c := connect(t, p, name)
			all.Go(func() {
				for i := range each {
					id := w*100 + i
					for _, statement := range []string{
						fmt.Sprintf(`insert into amqp.broker (broker_id, host) values (%d, 'h')`, id),
						fmt.Sprintf(`select amqp.publish(%d, 'ex', 'k', 'm')`, id),
						fmt.Sprintf(`delete from amqp.broker where broker_id = %d and broker_id %% 2 = 1`, id),
					} {
						if _, err := c.Exec(t.Context(), statement); err != nil {
							t.Errorf("%s: %v", statement, err)
						}
					}
				}
			})
		}
		all.Wait()
		if !value[bool](t, conn, `select amqp._broker_ids() = array(select broker_id from amqp.broker order by 1)`) {
			t.Error("the list of brokers is not that of the table")
		}
		// A session that has its plans made sees a deletion by another one.
		exec(t, conn, `select amqp.publish(100, 'ex', 'k', 'm')`)
		exec(t, connect(t, p, name), `delete from amqp.broker where broker_id = 100`)
		_, err := conn.Exec(t.Context(), `select amqp.publish(100, 'ex', 'k', 'm')`)
		if err == nil || !strings.Contains(err.Error(), "broker 100 is not in amqp.broker") {
			t.Errorf("publish to a broker that another session has deleted: %v", err)
		}
	})
}

func TestOtherEncodingsOfTheDatabaseSendUTF8(t *testing.T) {
	p := server(t, 15)
	admin := connect(t, p, "postgres")
	for _, encoding := range []string{"LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			name := newDatabase(t, p)
			exec(t, admin, `drop database `+name)
			exec(t, admin, `create database `+name+` encoding '`+encoding+`' locale 'C' template template0`)
			conn := connect(t, p, name)
			install(t, conn, name)
			exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
			contents(t, conn, name)
			letter, wide := "\u00e9", 127 // 255 bytes and one more in UTF-8, about half of that in the database
			if encoding == "EUC_JP" {
				letter, wide = "\u65e5", 85 // two bytes there, three in UTF-8
			}
			exec(t, conn, `select amqp.publish(1, $1::text, $2, $1, 2, $1, headers => jsonb_build_object('k', $1::text))`, letter, strings.Repeat(letter, wide))
			got := contents(t, conn, name)
			if len(got) != 1 || strings.Count(string(got[0]), letter) != wide+4 {
				t.Errorf("%q", got)
			}
			if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{
				Origin: "o", LSN: 1, Exchange: letter + "\u2603", Headers: json.RawMessage(`{"snow": "\u2603"}`), Body: []byte("\u2603"),
			}); err != nil {
				t.Error(err)
			}
			_, err := conn.Exec(t.Context(), `select amqp.publish(1, 'ex', $1, '')`, strings.Repeat(letter, wide+1))
			if err == nil || !strings.Contains(err.Error(), "routing_key is 25") {
				t.Errorf("a routing key of more than 255 bytes in UTF-8: %v", err)
			}
		})
	}
}
