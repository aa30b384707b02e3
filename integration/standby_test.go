package integration

import (
	"net/http"
	"syscall"
	"testing"
	"time"
)

// leader waits until one of the daemons works, and returns it.
func leader(t *testing.T, daemons []*daemon) *daemon {
	t.Helper()
	var found *daemon
	await(t, startLimit, "one daemon works", func() bool {
		for _, d := range daemons {
			if d.running() && d.is("ready") {
				found = d
				return true
			}
		}
		return false
	})
	return found
}

// without returns the others.
func without(daemons []*daemon, gone *daemon) []*daemon {
	var others []*daemon
	for _, d := range daemons {
		if d != gone {
			others = append(others, d)
		}
	}
	return others
}

func TestP26OneDaemonWorksAndTheOthersWaitReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	first := w.start()
	second := w.launch()
	second.waitStandby()
	second.waitLog("waiting for the slot")
	second.wantLog(`slot "` + w.slot + `" is active for PID \d+`)
	second.wantAnswer("/healthz", http.StatusOK, `^alive\n$`)
	second.wantAnswer("/readyz", http.StatusOK, `^standby\n$`)
	for d, want := range map[*daemon]struct {
		leader float64
		state  string
	}{first: {1, `state="streaming"`}, second: {0, `state="standby"`}} {
		if d.metric("pgamqp_leader") != want.leader || d.metric("pgamqp_replication_state", want.state) != 1 {
			t.Errorf("the metrics do not say leader %v and %s", want.leader, want.state)
		}
	}
	w.exec(`select amqp.publish(1, '', 'q', 'by the first')`)
	w.waitDelivered()
	if code := first.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.exec(`select amqp.publish(1, '', 'q', 'by the second')`)
	compare([]string{"by the first", "by the second"}, w.received(1, "q")).wantExact(t)
	second.waitReady()
	if second.metric("pgamqp_leader") != 1 {
		t.Error("the second daemon is not the leader")
	}
}

func TestP27StandbyTakesOverFromAKilledDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	h := w.history()
	daemons := []*daemon{w.start(), w.launch(), w.launch()}
	for _, d := range daemons[1:] {
		d.waitStandby()
	}
	l := w.startLoad(restartLoad())
	for len(daemons) > 1 {
		killed := leader(t, daemons)
		l.waitCommits(50)
		began := time.Now()
		killed.kill()
		daemons = without(daemons, killed)
		leader(t, daemons)
		// A fifth of a second on a machine that has nothing else to do.
		t.Logf("taken over %s after the kill", time.Since(began).Round(time.Millisecond))
		l.waitCommits(50)
	}
	l.stop()
	got := w.received(1, loadQueue) // before history is asked: it sees what is on disk
	compare(h.bodies(1), got).wantComplete(t)
	w.checkLeftovers(daemons[0])
}

func TestP28FrozenDaemonIsReplacedAndDoesNoHarm(t *testing.T) {
	t.Parallel()
	const timeout = "10s" // less, and a daemon that waits for the processor counts as frozen
	w := newWorld(t, worldOptions{})
	w.exec(`alter database ` + w.database + ` set wal_sender_timeout = '` + timeout + `'`)
	h := w.history()
	first := w.start()
	second := w.launch()
	second.waitStandby()
	l := w.startLoad(restartLoad())
	l.waitCommits(50)
	began := time.Now()
	first.signal(syscall.SIGSTOP)
	second.waitReady()
	t.Logf("taken over %s after the freeze, wal_sender_timeout is %s", time.Since(began).Round(time.Millisecond), timeout)
	l.waitCommits(50)
	first.signal(syscall.SIGCONT)
	first.waitStandby()
	if !second.is("ready") {
		t.Error("the one that took over does not work any more")
	}
	l.waitCommits(50)
	second.kill()
	first.waitReady()
	l.waitCommits(50)
	l.stop()
	got := w.received(1, loadQueue) // before history is asked: it sees what is on disk
	compare(h.bodies(1), got).wantComplete(t)
	w.checkLeftovers(first)
}

// A stream that is paused because the broker takes nothing goes on reporting, so the server
// does not take it for dead.
func TestP29AndP30StreamOutlivesAPauseThatIsLongerThanTheTimeout(t *testing.T) {
	t.Parallel()
	w, p := behindProxy(t)
	// Reports come every 3.3 s then, so that one may be late on a busy machine.
	w.exec(`alter database ` + w.database + ` set wal_sender_timeout = '10s'`)
	d := w.start("--heartbeat-interval", "1h")
	const walsender = `select active_pid from pg_replication_slots where slot_name = $1`
	before := value[int](w, walsender, w.slot)
	p.refuse() // a connection that is silent for so long would be given up, and messages come again
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 6000) n`)
	if value[bool](w, `select amqp.wait_delivered("timeout" => '15s')`) {
		t.Error("delivered, and nothing gets through")
	}
	if d.metric("pgamqp_backpressure_seconds_total", `stage="inbox"`) == 0 {
		t.Error("the stream was not paused")
	}
	if after := value[int](w, walsender, w.slot); after != before {
		t.Errorf("the server's process for the stream was %d and is %d", before, after)
	}
	p.accept()
	compare(good(6000), w.received(1, "q")).wantExact(t)
}
