package catalog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// BenchmarkCallCost compares calls of amqp.publish with a bare pg_logical_emit_message, each
// parsed, planned and run anew inside the server, as an unprepared call of an application is.
// The metric is the ratio; time alone says more about the machine.
func BenchmarkCallCost(b *testing.B) {
	p := server(b, 15)
	conn, name := installed(b, p)
	exec(b, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
	exec(b, conn, `create function cost(call text, calls int) returns float8 language plpgsql as $$
		declare
			start constant timestamptz := clock_timestamp();
		begin
			for i in 1..calls loop execute call; end loop;
			return extract(epoch from clock_timestamp() - start) * 1e6 / calls;
		end $$`)
	// Limits of the role that publishes, and of another one: then every call gets a closer look.
	limited, other := name+"_limited", name+"_other"
	exec(b, conn, `create role `+limited+` login`)
	exec(b, conn, `create role `+other)
	atEnd(b, p, "postgres", `drop role `+limited, `drop role `+other)
	atEnd(b, p, name, `drop owned by `+limited+`, `+other)
	body := "'" + strings.Repeat("x", 200) + "'"
	bare := `select pg_logical_emit_message(true, 'amqp', ` + body + `)`
	for _, c := range []struct{ name, call string }{
		{"four arguments", `select amqp.publish(1, 'ex', 'some.key', ` + body + `)`},
		{"autonomous", `select amqp.autonomous_publish(1, 'ex', 'some.key', ` + body + `)`},
		{"four properties", `select amqp.publish(1, 'ex', 'some.key', ` + body + `, 2, 'text/plain', null, 'corr', null, 'id-1', null, null, null, null, null, null, null, null)`},
		{"every property", `select amqp.publish(1, 'ex', 'some.key', ` + body + `, 2, 'text/plain', 'replies', 'corr', '{"a": 1, "b": "two"}', 'id-1', 5, '60000', 'type', 'app', 'guest', 'utf-8', '2024-01-01 00:00:00+00', true)`},
		{"two named properties", `select amqp.publish(1, 'ex', 'some.key', ` + body + `, content_type => 'text/plain', message_id => 'id-1')`},
	} {
		b.Run(c.name, func(b *testing.B) {
			var ratios []float64
			for b.Loop() {
				ratios = append(ratios, cost(b, conn, c.call)/cost(b, conn, bare))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-bare")
		})
	}
	usual := `select amqp.publish(1, 'ex', 'some.key', ` + body + `)`
	for _, c := range []struct{ name, grant, user string }{
		{"no limits", "", "postgres"},
		{"limits of another role", `select amqp.grant_publish('` + other + `', 1)`, "postgres"},
		{"limits of the role", `select amqp.grant_publish('` + limited + `', 1)`, limited},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.grant != "" {
				exec(b, conn, c.grant)
			}
			var ratios []float64
			for b.Loop() {
				without := cost(b, conn, bare)
				exec(b, conn, `set session authorization `+c.user)
				ratios = append(ratios, cost(b, conn, usual)/without)
				exec(b, conn, `reset session authorization`)
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-bare")
		})
	}
}

func cost(b *testing.B, conn *pgx.Conn, call string) float64 {
	b.Helper()
	return value[float64](b, conn, fmt.Sprintf(`select cost($1, %d)`, 5000), call)
}
