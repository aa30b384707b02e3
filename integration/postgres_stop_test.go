package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// breakBroker gives a broker a port on which nothing answers, and waits until the daemon has
// found that out.
func (w *world) breakBroker(d *daemon, broker int) {
	w.t.Helper()
	port := closedPort(w.t)
	w.exec(`update amqp.broker set port = $2 where broker_id = $1`, broker, port)
	d.waitLog(fmt.Sprintf("connect to broker at 127.0.0.1:%d", port))
}

// mendBroker takes that back.
func (w *world) mendBroker(broker int) {
	w.t.Helper()
	w.exec(`update amqp.broker set port = $2 where broker_id = $1`, broker, w.rabbit.Port())
}

// leaderAndStandby tells two daemons apart, once both are ready.
func (w *world) leaderAndStandby(a, b *daemon) (working, waiting *daemon) {
	w.t.Helper()
	working = leader(w.t, []*daemon{a, b})
	waiting = without([]*daemon{a, b}, working)[0]
	waiting.waitStandby()
	return working, waiting
}

// PostgreSQL waits at its end for every replication client to confirm all it was sent, without
// limit. A daemon that cannot confirm has to let go.
func TestP16AndP17AndP19PostgresStopsPromptly(t *testing.T) {
	t.Parallel()
	const limit = 8 * time.Second
	postgres := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: postgres})
	w.queue(1, "q")
	h := w.history()
	d := w.start()
	stop := func(what string, mode testserver.StopMode) {
		t.Helper()
		w.waitStreaming()
		began := time.Now()
		if err := postgres.Stop(mode); err != nil {
			t.Errorf("%s, %s: %v", mode, what, err)
		}
		took := time.Since(began)
		t.Logf("%s stop, %s: %s", mode, what, took.Round(time.Millisecond))
		if took > limit {
			t.Errorf("%s stop, %s, took %s, want less than %s", mode, what, took, limit)
		}
		if err := postgres.Start(); err != nil {
			t.Fatal(err)
		}
		if !d.running() {
			t.Fatalf("%s stop, %s: the daemon has ended", mode, what)
		}
	}
	w.exec(`select amqp.publish(1, '', 'q', 'first')`)
	w.waitDelivered()
	waiting := w.launch() // on a connection that is idle
	waiting.waitStandby()
	stop("daemons idle", testserver.Fast)
	d, waiting = w.leaderAndStandby(d, waiting)
	stop("daemons idle", testserver.Smart)
	d, waiting = w.leaderAndStandby(d, waiting)
	if code := waiting.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	w.waitStreaming()
	w.breakBroker(d, 1)
	w.exec(`select amqp.publish(1, '', 'q', 'waits')`)
	stop("broker down", testserver.Fast)
	stop("broker down", testserver.Smart)
	// More than the daemon holds: it reads no more, so it does not hear what the server says.
	w.waitStreaming()
	w.exec(`select amqp.publish(1, '', 'q', 'waits, too: ' || n) from generate_series(1, 5000) n`)
	await(t, startLimit, "the daemon can hold no more", func() bool {
		return d.metric("pgamqp_backpressure_seconds_total", `stage="inbox"`) > 0
	})
	stop("broker down and all buffers full", testserver.Fast)
	stop("broker down and all buffers full", testserver.Smart)

	w.mendBroker(1)
	compare(h.bodies(1), w.received(1, "q")).wantExact(t)
	w.checkLeftovers(d)
}
