package integration

import (
	"fmt"
	"testing"
	"time"
)

// ownSlots returns how many brokers have a slot of their own.
func (w *world) ownSlots() int {
	w.t.Helper()
	return value[int](w, `select count(*)::int from pg_replication_slots where starts_with(slot_name::text, $1 || '_broker_')`, w.slot)
}

// waitOwnSlots waits until so many brokers are detached.
func (w *world) waitOwnSlots(n int) {
	w.t.Helper()
	await(w.t, time.Minute, fmt.Sprintf("%d brokers have a slot of their own", n), func() bool { return w.ownSlots() == n })
}

// confirmed is the confirmed position of the main slot.
const confirmedFlush = `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`

func TestBrokerThatIsDownIsDetachedAndJoinsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 3})
	h := w.history()
	d := w.start("--detach-after", "1s")
	l := w.startLoad(restartLoad())
	for range 2 {
		l.waitCommits(50)
		w.breakBroker(d, 2)
		w.waitOwnSlots(1)
		before := w.lsn(confirmedFlush, w.slot)
		l.waitCommits(200)
		await(t, startLimit, "the main slot moves on", func() bool { return w.lsn(confirmedFlush, w.slot) > before })
		if n := d.metric("pgamqp_broker_detached", `broker="2"`); n != 1 {
			t.Errorf("pgamqp_broker_detached is %v", n)
		}
		w.mendBroker(2)
		w.waitOwnSlots(0)
	}
	l.stop()
	for broker := 1; broker <= 3; broker++ {
		got := w.received(broker, loadQueue)
		compare(h.bodies(broker), got).wantExact(t)
		t.Logf("broker %d: %d messages", broker, len(got))
	}
	h.checkLedger()
	w.checkLeftovers(d)
}
