package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

//go:embed setup_rows.sql
var setupRowsSQL string

// balances is what a consumer of the messages about rows knows: balances by table and key, and how
// many messages of each operation told it so.
type balances struct {
	of  map[string]map[int64]int64
	ops map[string]int
}

// tables are those of pgbench that have balances, with the columns of their keys and balances.
func tables() map[string][2]string {
	return map[string][2]string{
		"pgbench_accounts": {"aid", "abalance"}, "pgbench_tellers": {"tid", "tbalance"}, "pgbench_branches": {"bid", "bbalance"},
	}
}

// RunRows runs the demo of row changes: pgbench changes its tables while a snapshot of them is taken, and
// a consumer rebuilds the balances. It returns ErrWrong if they are not those of the tables.
func RunRows(ctx context.Context, o Options) error {
	w := &world{options: o}
	defer w.close()
	step := func(text string) { fmt.Fprintf(o.Out, "%s\n", text) }

	step("starting a private PostgreSQL and a private RabbitMQ node, pgbench --initialize ...")
	if err := w.startServers(ctx, 1); err != nil {
		return err
	}
	if err := w.pgbench(ctx, []string{"--initialize", "--quiet"}, nil); err != nil {
		return err
	}
	step("running: pgamqp install; select amqp.route_table('public.pgbench_*', 1, 'demo'); pgamqp run ...")
	if err := w.startDaemon(ctx, setupRowsSQL); err != nil {
		return err
	}
	w.hints()
	deliveries, err := w.brokers[0].consume()
	if err != nil {
		return err
	}
	seen := &balances{of: map[string]map[int64]int64{}, ops: map[string]int{}}
	consumed := make(chan error, 1)
	go func() { // consumer
		consumed <- follow(ctx, deliveries, func(d amqp.Delivery) error { return seen.apply(d.Body) })
	}()

	step(fmt.Sprintf("pgbench for %s with 4 clients, and: select amqp.snapshot('public.pgbench_*') ...", o.Duration))
	if _, err := w.db.Exec(ctx, `select amqp.snapshot('public.pgbench_*')`); err != nil {
		return fmt.Errorf("ask for a snapshot: %w", err)
	}
	if err := w.pgbench(ctx, w.loadArguments("--no-vacuum"), nil); err != nil {
		return err
	}
	if err := w.awaitSnapshots(ctx); err != nil {
		return err
	}
	if err := w.publishLast(ctx); err != nil {
		return err
	}
	if err := <-consumed; err != nil {
		return err
	}
	wrong, err := w.compareBalances(ctx, seen)
	if err != nil {
		return err
	}
	if o.Keep {
		step("\nThe servers keep running; Ctrl-C ends them. Look around:")
		w.hints()
		<-ctx.Done()
	}
	if wrong > 0 {
		return ErrWrong
	}
	return nil
}

// apply takes what a message says of a row.
func (b *balances) apply(body []byte) error {
	var m struct {
		Table, Op     string
		Before, After map[string]any
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("read the message %.100s: %w", body, err)
	}
	b.ops[m.Op]++
	columns, known := tables()[m.Table]
	if !known {
		return nil // the history, which has no balances
	}
	if b.of[m.Table] == nil {
		b.of[m.Table] = make(map[int64]int64)
	}
	number := func(row map[string]any, column string) int64 {
		n, _ := row[column].(float64) // all of pgbench's fit
		return int64(n)
	}
	if m.Before != nil {
		delete(b.of[m.Table], number(m.Before, columns[0]))
	}
	if m.After != nil {
		b.of[m.Table][number(m.After, columns[0])] = number(m.After, columns[1])
	}
	return nil
}

// awaitSnapshots waits until all rows are on their way.
func (w *world) awaitSnapshots(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, fmt.Errorf("the snapshots are not done after five minutes"))
	defer cancel()
	for {
		var open, failed int
		err := w.db.QueryRow(ctx, `
			select count(*) filter (where state = 'running'), count(*) filter (where state = 'failed') from amqp.snapshot`).Scan(&open, &failed)
		switch {
		case err != nil:
			return fmt.Errorf("read amqp.snapshot: %w", err)
		case failed > 0:
			return fmt.Errorf("%d snapshots have failed:\n%s", failed, w.output.String())
		case open == 0:
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// compareBalances holds the tables against what the consumer knows, prints both, and returns how many
// rows differ.
func (w *world) compareBalances(ctx context.Context, seen *balances) (wrong int, err error) {
	row := func(name string, value any, note string) {
		fmt.Fprintf(w.options.Out, "  %-34s %10v  %s\n", name, value, note)
	}
	fmt.Fprintln(w.options.Out)
	for _, op := range []string{"read", "insert", "update", "delete"} {
		row("messages of operation "+op, seen.ops[op], "")
	}
	for _, name := range []string{"pgbench_accounts", "pgbench_tellers", "pgbench_branches"} {
		columns := tables()[name]
		found, err := w.db.Query(ctx, fmt.Sprintf(`select %s, %s from %s`, columns[0], columns[1], name))
		if err != nil {
			return 0, err
		}
		rows, same := 0, 0
		var sum int64
		for found.Next() {
			var key, balance int64
			if err := found.Scan(&key, &balance); err != nil {
				return 0, err
			}
			rows, sum = rows+1, sum+balance
			if known, there := seen.of[name][key]; there && known == balance {
				same++
			}
		}
		if err := found.Err(); err != nil {
			return 0, err
		}
		differ := rows - same + max(0, len(seen.of[name])-rows)
		wrong += differ
		row("rows of "+name, rows, fmt.Sprintf("%d of the consumer's differ, the sum of balances is %d", differ, sum))
		if rows == 0 {
			wrong++
		}
	}
	return wrong, nil
}
