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

// stopPostgres stops PostgreSQL and starts it again. It waits at its end for every replication
// client to confirm all it was sent, without limit: a daemon that cannot confirm has to let go, or
// the stop fails after half a minute.
func (w *world) stopPostgres(d *daemon, what string, mode testserver.StopMode) {
	w.t.Helper()
	w.waitStreaming()
	began := time.Now()
	if err := w.postgres.Stop(mode); err != nil {
		w.t.Errorf("%s, %s: %v", mode, what, err)
	}
	w.t.Logf("%s stop, %s: %s", mode, what, time.Since(began).Round(time.Millisecond))
	if err := w.postgres.Start(); err != nil {
		w.t.Fatal(err)
	}
	if !d.running() {
		w.t.Fatalf("%s stop, %s: the daemon has ended", mode, what)
	}
}

// publishSome publishes messages that the broker does not take now.
func (w *world) publishSome(what string) {
	w.t.Helper()
	w.waitStreaming()
	w.exec(`select amqp.publish(1, '', 'q', $1 || n) from generate_series(1, 10) n`, what+", few: ")
}

// fillDaemon publishes more than the daemon holds: then it reads no more, and does not hear what
// the server says.
func (w *world) fillDaemon(d *daemon, what string) {
	w.t.Helper()
	w.waitStreaming()
	waited := func() float64 { return d.metric("pgamqp_backpressure_seconds_total", `stage="inbox"`) }
	before := waited()
	w.exec(`select amqp.publish(1, '', 'q', $1 || n) from generate_series(1, 5000) n`, what+", many: ")
	await(w.t, startLimit, "the daemon can hold no more", func() bool { return waited() > before })
}

// stopDuring stops PostgreSQL while a broker takes nothing: with a few messages that wait, and with as
// many as the daemon can hold.
func (w *world) stopDuring(d *daemon, fault string, few, full []testserver.StopMode) {
	w.t.Helper()
	w.publishSome(fault)
	for _, mode := range few {
		w.stopPostgres(d, fault, mode)
	}
	w.fillDaemon(d, fault)
	for _, mode := range full {
		w.stopPostgres(d, fault+" and all buffers full", mode)
	}
}

// leaderAndStandby tells two daemons apart, once both are ready.
func (w *world) leaderAndStandby(a, b *daemon) (working, waiting *daemon) {
	w.t.Helper()
	working = leader(w.t, []*daemon{a, b})
	waiting = without([]*daemon{a, b}, working)[0]
	waiting.waitStandby()
	return working, waiting
}

func TestP16AndP17AndP19PostgresStopsPromptly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	h := w.history()
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'first')`)
	w.waitDelivered()
	goroutines := d.metric("go_goroutines")
	fast, smart := testserver.Fast, testserver.Smart
	both := []testserver.StopMode{fast, smart}
	for _, mode := range both {
		w.stopPostgres(d, "daemon idle", mode)
	}
	for _, fault := range []struct {
		name       string
		begin, end func()
		few        []testserver.StopMode
	}{
		{"broker down", p.refuse, p.accept, both},
		{"broker frozen", p.freeze, p.thaw, both[1:]},
	} {
		w.waitStreaming()
		d.waitReady()
		fault.begin()
		w.stopDuring(d, fault.name, fault.few, both)
		fault.end()
		w.waitStreaming()
		w.waitDelivered()
	}
	h.compare(1, "q").wantComplete(t)
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

func TestP16PostgresStopsPromptlyWithABrokerThatIsBlockedOrPaused(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), rabbit: rabbit})
	w.queue(1, "q")
	h := w.history()
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'first')`)
	w.waitDelivered()
	fast, smart := []testserver.StopMode{testserver.Fast}, []testserver.StopMode{testserver.Smart}

	setAlarm(t, rabbit, true)
	w.stopDuring(d, "broker blocked", fast, smart)
	setAlarm(t, rabbit, false)
	w.waitStreaming()
	w.waitDelivered()

	if err := rabbit.Pause(); err != nil {
		t.Fatal(err)
	}
	w.stopDuring(d, "broker paused", smart, fast)
	if err := rabbit.Resume(); err != nil {
		t.Fatal(err)
	}
	w.waitStreaming()
	w.waitDelivered()
	h.compare(1, "q").wantComplete(t)
	w.checkLeftovers(d)
}

// A daemon that waits for the slot has a connection that is idle: it must not keep the server.
func TestP19PostgresStopsPromptlyWithADaemonThatStandsBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	working := w.start()
	waiting := w.launch()
	waiting.waitStandby()
	for _, mode := range []testserver.StopMode{testserver.Fast, testserver.Smart} {
		w.stopPostgres(working, "two daemons", mode)
		working, waiting = w.leaderAndStandby(working, waiting)
	}
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
	if code := waiting.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
