package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// waitStreaming waits until a daemon reads the slot. It is less than ready: a broker may
// be down.
func (w *world) waitStreaming() {
	w.t.Helper()
	await(w.t, startLimit, "the daemon streams", func() bool {
		return value[bool](w, `select active from pg_replication_slots where slot_name = $1`, w.slot)
	})
}

func TestP31DaemonOutlivesRestartsOfPostgresUnderLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		stop func(*testserver.Postgres) error
	}{
		{"fast", func(p *testserver.Postgres) error { return p.Stop(testserver.Fast) }},
		{"immediate", func(p *testserver.Postgres) error { return p.Stop(testserver.Immediate) }},
		{"killed", func(p *testserver.Postgres) error { return p.Kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			postgres := ownPostgres(t, testserver.PostgresOptions{Durable: true})
			w := newWorld(t, worldOptions{brokers: 2, postgres: postgres})
			h := w.history()
			d := w.start()
			random := newSeed(t)
			l := w.startLoad(restartLoad())
			l.waitCommits(20)
			goroutines := d.metric("go_goroutines")
			const restarts = 3
			for range restarts {
				l.waitCommits(1 + random.IntN(200))
				if err := c.stop(postgres); err != nil {
					t.Fatal(err)
				}
				if err := postgres.Start(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				w.waitStreaming() // ready may still mean the time before
				d.waitReady()
				t.Logf("recovered %s after PostgreSQL was ready", time.Since(began).Round(time.Millisecond))
			}
			l.waitCommits(20)
			l.stop()
			for broker := 1; broker <= 2; broker++ {
				got := w.received(broker, loadQueue)
				compared := compare(h.bodies(broker), got)
				compared.wantComplete(t)
				// Both brokers confirm all they were sent, so only a transaction that was cut in the
				// middle comes again: at most its first ten messages.
				if n := len(compared.repeated); n > restarts*10 {
					t.Errorf("broker %d: %d messages came again, which is more than %d open transactions hold", broker, n, restarts)
				}
				t.Logf("broker %d: %d messages, %d of them came again", broker, len(got), len(compared.repeated))
			}
			h.checkLedger()
			w.checkLeftovers(d)
			checkGoroutines(t, d, goroutines)
		})
	}
}

// checkGoroutines fails the test if the daemon has many more goroutines than it had. A few
// come and go: the pool's, and those of the request that asks.
func checkGoroutines(t *testing.T, d *daemon, before float64) {
	t.Helper()
	var now float64
	await(t, 15*time.Second, fmt.Sprintf("the daemon has no more goroutines than the %v before", before), func() bool {
		now = d.reading("go_goroutines")
		return now <= before+4
	})
	t.Logf("the daemon has %v goroutines, had %v", now, before)
}

// A server forgets confirmations when it restarts, up to version 16, or crashes. What a daemon
// has confirmed in its life it knows by itself.
func TestP33DaemonRepeatsNothingThatItHasConfirmedBeforeARestartOfPostgres(t *testing.T) {
	t.Parallel()
	for _, version := range []int{15, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			postgres := ownPostgres(t, testserver.PostgresOptions{Version: version, Durable: true})
			w := newWorld(t, worldOptions{postgres: postgres})
			w.queue(1, "q")
			h := w.history()
			d := w.start()
			w.exec(`do $$
				begin
					for i in 1 .. 400 loop
						perform amqp.publish(1, '', 'q', format('transaction %s', i));
						perform amqp.autonomous_publish(1, '', 'q', format('autonomous %s', i));
						commit;
					end loop;
				end $$`)
			w.exec(`select amqp.publish(1, '', 'q', format('large transaction %s', i)) from generate_series(1, 200) i`)
			w.waitDelivered()

			for _, mode := range []testserver.StopMode{testserver.Fast, testserver.Immediate} {
				if err := postgres.Restart(mode); err != nil {
					t.Fatal(err)
				}
				w.waitStreaming()
				w.exec(`select amqp.publish(1, '', 'q', 'after ' || $1)`, mode.String())
				w.waitDelivered()
				t.Logf("after %s: %v units came again from the server", mode, d.metric("pgamqp_dropped_duplicates_total"))
			}
			got := w.received(1, "q")
			compare(h.bodies(1), got).wantExact(t)
			if len(got) != 1002 {
				t.Errorf("%d messages came, want 1002", len(got))
			}
			w.checkLeftovers(d)
		})
	}
}
