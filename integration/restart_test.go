package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// restartLoad is traffic for tests that break something under it: enough to have always
// something in flight, and little enough to leave the processor to those who start again.
func restartLoad() loadOptions { return loadOptions{pause: 8 * time.Millisecond, ledger: true} }

// newSeed returns a generator for the choices of a test, and logs how to have the same again.
func newSeed(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("choices with seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestP56TwentyCleanRestartsUnderLoadLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	h := w.history()
	random := newSeed(t)
	l := w.startLoad(restartLoad())
	for restart := range 20 {
		d := w.launch()
		if restart%4 == 3 {
			d.waitLog("msg=listening") // while it is starting
		} else {
			d.waitReady()
			l.waitCommits(1 + random.IntN(200))
		}
		if code := d.stop(); code != 0 {
			t.Errorf("restart %d: exit code %d\n%s", restart, code, d.log.tail())
		}
		checkLog(t, d.log.String())
	}
	d := w.start()
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		c := h.compare(broker, loadQueue)
		c.wantExact(t)
		t.Logf("broker %d: %d messages", broker, c.came)
	}
	h.checkLedger()
	w.checkLeftovers(d)
}

// checkLeftovers fails the test unless the daemon is all that is left: one replication
// connection in the world's database, and one connection to each broker.
func (w *world) checkLeftovers(d *daemon) {
	w.t.Helper()
	if !d.running() {
		w.t.Fatal("the daemon has ended")
	}
	const walsenders = `select count(*)::int from pg_stat_activity where backend_type = 'walsender' and datname = current_database()`
	// A broker that was detached may be about to join the others again.
	await(w.t, startLimit, "one replication connection", func() bool { return value[int](w, walsenders) == 1 })
	var said string
	defer func() {
		if w.t.Failed() {
			w.t.Log(said)
		}
	}()
	await(w.t, 15*time.Second, "one connection to each broker", func() bool {
		all, err := w.rabbit.Connections(withDeadline(w.t, sqlLimit))
		if err != nil {
			w.t.Fatal(err)
		}
		count := make(map[string]int)
		for _, c := range all {
			if c.Properties["connection_name"] == "pgamqp "+w.slot {
				count[c.VHost]++
			}
		}
		said = fmt.Sprintf("connections by virtual host: %v", count)
		for _, vhost := range w.vhosts {
			if count[vhost] != 1 {
				return false
			}
		}
		return len(count) == len(w.vhosts)
	})
}
