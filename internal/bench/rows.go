package bench

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// rowMessage is as long as the message about a row of the table that routeRows makes.
const rowMessage = `{"schema":"public","table":"bench_row","op":"insert","lsn":"0/1A2B3C4D","xid":1234567,` +
	`"commit_time":"2026-01-02T03:04:05.123456Z","before":null,"after":{"id":123456,"customer":4711,"amount":"12.50",` +
	`"at":"2026-01-02T03:04:05.123456Z","note":"a note of some words, as people write"}}`

// routeRows makes a table whose rows become messages.
func (c content) routeRows(ctx context.Context, conn *pgx.Conn, to destination) error {
	for _, statement := range []string{
		`create table public.bench_row (id bigint primary key, customer integer, amount numeric(10,2), at timestamptz, note text)`,
		fmt.Sprintf(`select amqp.route_table('public.bench_row', 1, '', %s, format => %s)`, quote(to.Queue), quote(c.Row)),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("route rows: %w", err)
		}
	}
	return nil
}

// insertLoop inserts rows inside the server.
func insertLoop(rows, perTransaction int) string {
	return fmt.Sprintf(`do $do$
begin
	for i in 1..%d loop
		insert into public.bench_row values (i, 4711, 12.50, '2026-01-02 03:04:05.123456+00', 'a note of some words, as people write');
		if i %% %d = 0 and i < %d then commit; end if;
	end loop;
	perform set_config('bench.until', pg_current_wal_insert_lsn()::text, false);
end $do$`, rows, perTransaction, rows)
}

// rowsSection compares the delivery of rows with a loop that publishes messages of their size.
func (w *world) rowsSection() Section {
	stock := &stock{w: w}
	s := Section{
		Name: "rows", Title: fmt.Sprintf("Delivery of %d rows, against a loop that publishes messages as large", w.options.Messages),
		Columns: movingColumns(), Compared: colRate, Against: "only publishing",
	}
	for _, queue := range w.options.Queues {
		to := w.destination(queue, 0)
		base := queue + ": only publishing, confirms"
		c := w.content()
		c.Row = "json"
		s.Cases = append(s.Cases, w.publishCase(base, "", to, task{Confirm: true, Content: c}))
		for _, format := range []string{"json", "debezium"} {
			c.Row = format
			for _, n := range w.options.Transactions {
				if format != "json" && n != 1000 {
					continue
				}
				b := stock.add(c, w.options.Messages, n, to)
				s.Cases = append(s.Cases, Case{
					Name: fmt.Sprintf("%s: pgamqp, %s, %s", queue, format, perTransaction(n)), Base: base,
					Run: func(ctx context.Context) (Sample, error) { return w.drain(ctx, b()) },
				})
			}
		}
	}
	return stock.with(s)
}
