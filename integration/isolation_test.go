package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
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
		c := h.compare(broker, loadQueue)
		c.wantExact(t)
		t.Logf("broker %d: %d messages", broker, c.came)
	}
	h.checkLedger()
	w.checkLeftovers(d)
}

// TestKillsAroundDetachedBrokersLoseNothing kills the daemon anywhere between a broker's
// failure and its joining again.
func TestKillsAroundDetachedBrokersLoseNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	h := w.history()
	random := newSeed(t)
	d := w.start("--detach-after", "1s")
	l := w.startLoad(restartLoad())
	var spans []span
	kill := func() {
		d.kill()
		spans = append(spans, w.unconfirmedOf(2))
		d = w.launch("--detach-after", "1s")
		d.waitLog("msg=streaming")
	}
	for round := range 6 {
		l.waitCommits(20)
		w.breakBroker(d, 2)
		w.waitOwnSlots(1)
		l.waitCommits(random.IntN(100))
		if round%2 == 0 {
			kill()
		}
		w.mendBroker(2)
		if round%3 > 0 { // somewhere on its way back
			l.waitCommits(1 + random.IntN(60))
			kill()
		}
		w.waitOwnSlots(0)
	}
	l.stop()
	ends := h.ends()
	for broker := 1; broker <= 2; broker++ {
		got := w.received(broker, loadQueue)
		c := compare(h.bodies(broker), got)
		c.wantComplete(t)
		checkRepeated(t, got, ends, spans)
		t.Logf("broker %d: %d messages, %d of them came again", broker, len(got), len(c.repeated))
	}
	h.checkLedger()
	w.checkLeftovers(d)
}

// unconfirmedOf is unconfirmed for a broker that may have a slot of its own.
func (w *world) unconfirmedOf(broker int) span {
	w.t.Helper()
	s := w.unconfirmed()
	s.from = w.lsn(`select min(confirmed_flush_lsn)::text from pg_replication_slots where slot_name::text in ($1::text, $1::text || '_broker_' || $2::text)`,
		w.slot, fmt.Sprint(broker))
	return s
}

func TestDetachedBrokerThatIsDeletedLeavesNoSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	d := w.start("--detach-after", "1s")
	w.breakBroker(d, 2)
	w.exec(`select amqp.publish(b, '', 'q', n::text) from generate_series(1, 20) n, generate_series(1, 2) b`)
	w.exec(`select amqp.publish(1, '', 'q', 'later')`)
	w.waitOwnSlots(1)
	await(t, startLimit, "/metrics shows the slot", func() bool {
		_, said := d.get("/metrics")
		return strings.Contains(said, fmt.Sprintf(`pgamqp_slot_retained_wal_bytes{slot="%s_broker_2"}`, w.slot))
	})
	w.exec(`delete from amqp.broker where broker_id = 2`)
	w.waitOwnSlots(0)
	w.waitDelivered()
	if n := value[int](w, `select count(*)::int from amqp.dead_letter where reason = 'unknown_broker' and broker_id = 2`); n != 20 {
		t.Errorf("%d dead letters, want 20", n)
	}
	if _, said := d.get("/metrics"); strings.Contains(said, "_broker_2") {
		t.Error("/metrics still has series of the slot")
	}
	if got := len(w.received(1, "q")); got != 21 {
		t.Errorf("%d messages came, want 21", got)
	}
}

func TestWithoutAFreeSlotABrokerHoldsUpTheOthersAndTheLogSaysSo(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_replication_slots": "2"}})
	w := newWorld(t, worldOptions{brokers: 2, postgres: p})
	w.exec(`select pg_create_physical_replication_slot('last')`)
	w.queue(1, "q")
	w.queue(2, "q")
	d := w.start("--detach-after", "1s")
	w.breakBroker(d, 2)
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`)
	w.exec(`select amqp.publish(1, '', 'q', 'comes')`)
	d.waitLog("raise max_replication_slots")
	if value[bool](w, `select amqp.delivered(pg_current_wal_lsn())`) {
		t.Error("what waits counts as delivered")
	}
	w.exec(`select pg_drop_replication_slot('last')`)
	w.waitOwnSlots(1) // it is tried again
	w.mendBroker(2)
	w.waitOwnSlots(0)
	for broker, want := range map[int]string{1: "comes", 2: "waits"} {
		if got := bodies(w.received(broker, "q")); !slices.Equal(got, []string{want}) {
			t.Errorf("broker %d has got %q", broker, got)
		}
	}
}

// TestPostgresStopsPromptlyWithADetachedBroker, whose stream has all buffers full.
func TestPostgresStopsPromptlyWithADetachedBroker(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{brokers: 2, postgres: p})
	h := w.history()
	w.queue(1, "q")
	w.queue(2, "q")
	d := w.start("--detach-after", "1s")
	w.breakBroker(d, 2)
	w.exec(`select amqp.publish(2, '', 'q', n::text) from generate_series(1, 5000) n`)
	w.exec(`select amqp.publish(1, '', 'q', 'comes')`)
	w.waitOwnSlots(1)
	waited := func() float64 {
		return d.reading("pgamqp_backpressure_seconds_total", `stage="inbox"`, fmt.Sprintf(`slot="%s_broker_2"`, w.slot))
	}
	before := 0.0
	for _, mode := range []testserver.StopMode{testserver.Fast, testserver.Smart} {
		await(t, startLimit, "the own stream can hold no more", func() bool {
			return value[int](w, `select count(*)::int from pg_replication_slots where active and starts_with(slot_name::text, $1)`, w.slot) == 2 && waited() > before
		})
		began := time.Now()
		if err := p.Stop(mode); err != nil {
			t.Errorf("%s stop: %v", mode, err)
		}
		t.Logf("%s stop took %s", mode, time.Since(began).Round(time.Millisecond))
		before = waited()
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		w.waitStreaming()
	}
	w.mendBroker(2)
	w.waitOwnSlots(0)
	for broker := 1; broker <= 2; broker++ {
		h.compare(broker, "q").wantExact(t)
	}
	w.checkLeftovers(d)
}

// TestLostSlotOfADetachedBrokerStopsTheDaemon: its messages are nowhere any more.
func TestLostSlotOfADetachedBrokerStopsTheDaemon(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "48MB"}})
	w := newWorld(t, worldOptions{brokers: 2, postgres: p})
	w.queue(1, "q")
	d := w.start("--detach-after", "1s")
	w.breakBroker(d, 2)
	w.exec(`select amqp.publish(2, '', 'q', 'is lost')`)
	w.exec(`select amqp.publish(1, '', 'q', 'comes')`)
	w.waitOwnSlots(1)
	own := w.slot + "_broker_2"
	from := value[string](w, confirmedFlush, own)
	await(t, time.Minute, "the slot is lost", func() bool {
		before := w.lsn(`select pg_current_wal_insert_lsn()::text`)
		w.exec(`select pg_switch_wal()`)
		w.exec(`select amqp.publish(1, '', 'q', 'comes, too')`)
		w.exec(`checkpoint`)
		await(t, startLimit, "the main slot follows", func() bool {
			return w.lsn(`select coalesce(restart_lsn, '0/0')::text from pg_replication_slots where slot_name = $1`, w.slot) >= before
		})
		return value[string](w, `select wal_status from pg_replication_slots where slot_name = $1`, own) == "lost"
	})
	if code := d.wait(startLimit); code != exitSlotLost {
		t.Errorf("exit code %d, want %d", code, exitSlotLost)
	}
	for _, want := range []string{own, from} {
		if log := d.log.String(); !strings.Contains(log, want) {
			t.Errorf("the log does not name %s\n%s", want, log)
		}
	}
}
