package integration

import (
	"net/http"
	"testing"
	"time"
)

// A network that holds everything back for a while ends no connection, and so repeats nothing.
func TestStallOfTheNetworkLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 100) n`)
	w.waitDelivered()
	connects := d.metric("pgamqp_broker_connects_total")
	p.freeze()
	const window = 2048 // of the daemon, by default
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(101, 6000) n`)
	taken := func() float64 { return d.metric("pgamqp_received_messages_total", `kind="publish"`) - 100 }
	await(t, 10*time.Second, "the window is full", func() bool { return taken() >= window })
	if value[bool](w, `select amqp.wait_delivered("timeout" => '1s')`) {
		t.Error("delivered, and nothing gets through")
	}
	if n := taken(); n > window+1 { // one more waits for room
		t.Errorf("the daemon has taken %v messages although its window has room for %d", n, window)
	}
	d.wantAnswer("/healthz", http.StatusOK, `^alive`)
	p.thaw()
	compare(good(6000), w.received(1, "q")).wantExact(t)
	if now := d.metric("pgamqp_broker_connects_total"); now != connects {
		t.Errorf("the daemon has connected %v times, %v before the stall", now, connects)
	}
	if waited := d.metric("pgamqp_backpressure_seconds_total", `stage="window"`); waited < 0.5 {
		t.Errorf("by the metric, the full window was waited for %v s", waited)
	}
}
