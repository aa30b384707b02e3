package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	// noticeLimit is how soon a daemon must have seen that a broker is silent: the library gives up
	// after 15 seconds without a byte, a write after 20.
	noticeLimit = 40 * time.Second
	// noticeFloor is less than a network may be silent: an impatient daemon would repeat messages
	// for nothing.
	noticeFloor = 8 * time.Second
)

// waitGivenUp waits until the daemon has given up its connection to broker 1, which has been silent
// since began.
func (d *daemon) waitGivenUp(what string, began time.Time) {
	d.t.Helper()
	await(d.t, noticeLimit, what+": the daemon gives the connection up", func() bool { return d.reading("pgamqp_broker_connected") == 0 })
	took := time.Since(began)
	d.t.Logf("%s: the daemon has given the connection up after %s", what, took.Round(100*time.Millisecond))
	if took < noticeFloor {
		d.t.Errorf("%s: the daemon has waited for only %s", what, took)
	}
	d.wantAnswer("/healthz", http.StatusOK, `^alive`)
}

// behindProxy is a world whose broker 1 has queue q and is reached through a proxy.
func behindProxy(t *testing.T) (*world, *proxy) {
	t.Helper()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	return w, p
}

// A peer that has vanished without a FIN answers nothing, and takes nothing. Only the missing
// heartbeats tell.
func TestR35HalfOpenConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	w, p := behindProxy(t)
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	var all []struct {
		VHost   string `json:"vhost"`
		Timeout int    `json:"timeout"`
	}
	await(t, startLimit, "the broker tells the interval of heartbeats", func() bool {
		if err := w.rabbit.API(withDeadline(t, sqlLimit), http.MethodGet, "/connections", nil, &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.VHost == w.vhosts[0] && c.Timeout == 10 {
				return true
			}
		}
		return false
	})
	goroutines := d.metric("go_goroutines")
	connects := d.metric("pgamqp_broker_connects_total")
	p.strand()
	began := time.Now()
	await(t, noticeLimit, "the daemon makes another connection", func() bool { return d.reading("pgamqp_broker_connects_total") > connects })
	t.Logf("another connection %s after the first one was dead", time.Since(began).Round(100*time.Millisecond))
	if took := time.Since(began); took < noticeFloor {
		t.Errorf("the daemon has waited for only %s", took)
	}
	d.wantRecovery("half-open connection", time.Now(), d.confirmed())
	l.stop()
	h.compare(1, "q").wantRepeatedAtMost(t, faultWindow)
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// TCP keeps what it cannot deliver. It comes through when the network is back, be it on a connection
// that was given up or on one that is being made.
func TestR35BlackHoleIsGivenUpAndLeft(t *testing.T) {
	t.Parallel()
	w, p := behindProxy(t)
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	p.freeze()
	began := time.Now()
	d.waitGivenUp("black hole", began)
	before := d.confirmed()
	p.thaw()
	d.wantRecovery("black hole", time.Now(), before)
	l.stop()
	h.compare(1, "q").wantRepeatedAtMost(t, faultWindow)
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// A broker that reads nothing blocks the writer, who holds what the library needs to close the
// connection: each write has a deadline.
func TestR15WriteToABrokerThatReadsNothingEnds(t *testing.T) {
	t.Parallel()
	w, p := behindProxy(t)
	d := w.start()
	const large = `select amqp.publish(1, '', 'q', format('large %s %s', n, repeat('x', 200000))) from generate_series($1::int, $2) n`
	w.exec(large, 1, 10)
	w.waitDelivered()
	goroutines := d.metric("go_goroutines")
	p.freeze()
	began := time.Now()
	w.exec(large, 11, 200) // 38 MB, more than all buffers of the kernel
	d.waitGivenUp("nothing is read", began)
	before := d.confirmed()
	p.thaw()
	d.wantRecovery("nothing is read", time.Now(), before)
	got := w.received(1, "q")
	for i := range got {
		got[i].Body = []byte(strings.TrimSpace(strings.TrimRight(string(got[i].Body), "x")))
	}
	want := make([]string, 200)
	for i := range want {
		want[i] = fmt.Sprintf("large %d", i+1)
	}
	compare(want, got).wantComplete(t)
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}
