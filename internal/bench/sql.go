package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// costFunction times a call inside the server, where no client's wake-up is in the way: parsed,
// planned and run anew each time, as an unprepared call of an application is.
const costFunction = `create or replace function bench_cost(call text, calls int) returns float8 language plpgsql as $$
declare
	start constant timestamptz := clock_timestamp();
begin
	for i in 1..calls loop execute call; end loop;
	return extract(epoch from clock_timestamp() - start) * 1e6 / calls;
end $$`

const (
	costCalls = 20_000
	colCall   = "call_us"
)

// cost is the time of one call in microseconds.
func (w *world) cost(ctx context.Context, call string) (Sample, error) {
	var us float64
	if err := w.db.QueryRow(ctx, `select bench_cost($1, $2)`, call, costCalls).Scan(&us); err != nil {
		return nil, err
	}
	return Sample{colCall: us}, nil
}

// sqlSection compares calls with what they are made of.
func (w *world) sqlSection() Section {
	body := quote(strings.Repeat("x", w.options.Body))
	all := w.content()
	all.AllProperties = true
	s := Section{
		Name: "sql", Title: "One call in the server, parsed, planned and run each time",
		Columns:  []Column{{Key: colCall, Title: "µs", Digits: 2}},
		Compared: colCall, Against: "bare",
		Prepare: func(ctx context.Context) error {
			_, err := w.db.Exec(ctx, costFunction)
			return err
		},
	}
	four := `, 2, 'text/plain', null, 'order-4711', null, ` + quote(messageID) + strings.Repeat(`, null`, 8)
	const bare = "pg_logical_emit_message"
	for _, c := range []struct{ name, base, call string }{
		{bare, "", `select pg_logical_emit_message(true, 'amqp', ` + body + `)`},
		{"amqp.publish, four arguments", bare, `select amqp.publish(1, 'ex', 'some.key', ` + body + `)`},
		{"amqp.publish, all arguments, four of them set", bare, `select amqp.publish(1, 'ex', 'some.key', ` + body + four + `)`},
		{"amqp.publish, all arguments", bare, `select amqp.publish(1, 'ex', 'some.key', ` + body + all.arguments() + `)`},
		{"amqp.autonomous_publish, four arguments", bare, `select amqp.autonomous_publish(1, 'ex', 'some.key', ` + body + `)`},
	} {
		s.Cases = append(s.Cases, Case{Name: c.name, Base: c.base, Run: func(ctx context.Context) (Sample, error) { return w.cost(ctx, c.call) }})
	}
	return s
}

// transactions are what pgbench runs: a small piece of work, alone and with a message.
func (w *world) transactions() []struct{ name, script string } {
	const work = "\\set id random(1, 10000)\nbegin;\nupdate bench_account set balance = balance + 1 where id = :id;\n"
	body := quote(strings.Repeat("x", w.options.Body))
	return []struct{ name, script string }{
		{"transaction alone", work + "commit;\n"},
		{"with amqp.publish", work + "select amqp.publish(1, 'ex', 'some.key', " + body + ");\ncommit;\n"},
		{"with a row in an outbox", work + "insert into bench_outbox (id, body) values (nextval('bench_outbox_id'), " + body + ");\ncommit;\n"},
		{"with a row in an outbox, and its deletion", work +
			"select nextval('bench_outbox_id') as outbox \\gset\n" +
			"insert into bench_outbox (id, body) values (:outbox, " + body + ");\ncommit;\n" +
			"delete from bench_outbox where id = :outbox;\n"},
	}
}

const tpsSetup = `create table if not exists bench_account (id int primary key, balance bigint not null);
insert into bench_account select i, 0 from generate_series(1, 10000) i on conflict do nothing;
create sequence if not exists bench_outbox_id;
create table if not exists bench_outbox (id bigint primary key, body text not null)`

const (
	colTPS      = "transactions_per_second"
	tpsClients  = 8
	tpsMeasured = "tps = "
)

// tpsSection is what a message costs a transaction.
func (w *world) tpsSection(pgbench string) Section {
	s := Section{
		Name: "tps", Title: fmt.Sprintf("Transactions of %d pgbench clients", tpsClients),
		Columns:  []Column{{Key: colTPS, Title: "transactions/s"}},
		Compared: colTPS, Against: "alone",
		Prepare: func(ctx context.Context) error {
			_, err := w.db.Exec(ctx, tpsSetup)
			return err
		},
	}
	for i, tx := range w.transactions() {
		base := ""
		if i > 0 {
			base = w.transactions()[0].name
		}
		s.Cases = append(s.Cases, Case{Name: tx.name, Base: base, Run: func(ctx context.Context) (Sample, error) {
			return w.tps(ctx, pgbench, tx.script)
		}})
	}
	return s
}

func (w *world) tps(ctx context.Context, pgbench, script string) (Sample, error) {
	folder, err := os.MkdirTemp("", "pgamqp-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, "script.sql")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		return nil, err
	}
	if _, err := w.db.Exec(ctx, `truncate bench_outbox`); err != nil {
		return nil, err
	}
	// The server writes what was before now, not while it is measured.
	if _, err := w.admin.Exec(ctx, `checkpoint`); err != nil {
		return nil, err
	}
	address, environment := forTools(w.databaseURL)
	cmd := exec.CommandContext(ctx, pgbench, "--no-vacuum", "--client", strconv.Itoa(tpsClients), "--jobs", "2", "--protocol", "prepared",
		"--time", strconv.Itoa(max(1, int(w.options.Time.Seconds()))), "--file", file, address)
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	found := regexp.MustCompile(tpsMeasured + `([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		return nil, fmt.Errorf("pgbench does not say %q:\n%s", tpsMeasured, out)
	}
	tps, err := strconv.ParseFloat(string(found[1]), 64)
	return Sample{colTPS: tps}, err
}
