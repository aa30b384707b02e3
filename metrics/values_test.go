package metrics_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/metrics"
)

// pass lets time go by inside a bubble of synctest, where it takes none.
func pass(d time.Duration) { <-time.After(d) }

func TestStopwatchCountsWhatIsStillRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w metrics.Stopwatch
		want := func(seconds float64) {
			t.Helper()
			if got := w.Seconds(); got != seconds {
				t.Errorf("%v s, want %v", got, seconds)
			}
		}
		w.Stop() // without a Start
		want(0)
		w.Start()
		pass(2 * time.Second)
		want(2)
		w.Start() // overlaps
		pass(time.Second)
		w.Stop()
		pass(time.Second)
		want(4)
		w.Stop()
		pass(time.Hour)
		want(4)
		w.Start()
		pass(time.Second)
		want(5)
		w.Stop()
	})
}

func TestBlockedSecondsGrowWhileTheBrokerIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		b := metrics.NewPublisher(reg).Broker(1)
		check := func(gauge, seconds string) {
			t.Helper()
			got := scrape(t, reg)
			if g, s := got[`pgamqp_broker_blocked{broker="1"}`], got[`pgamqp_broker_blocked_seconds_total{broker="1"}`]; g != gauge || s != seconds {
				t.Errorf("blocked %s for %s s, want %s for %s s", g, s, gauge, seconds)
			}
		}
		check("0", "0")
		b.SetBlocked(true)
		b.SetBlocked(true)
		pass(3 * time.Second)
		check("1", "3")
		b.SetBlocked(false)
		pass(time.Minute)
		check("0", "3")
	})
}

func TestStateIsOneHotAndAbsentUntilKnown(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := metrics.NewSlot(reg, "s")
	series := func(status string) string { return `pgamqp_slot_wal_status{slot="s",status="` + status + `"}` }
	if got := scrape(t, reg); len(got) != 0 {
		t.Errorf("before the first look: %v", got)
	}
	s.WALStatus.Set(metrics.WALReserved)
	s.WALStatus.Set(metrics.WALLost)
	s.SafeBytes.Set(-1)
	got := scrape(t, reg)
	for status, want := range map[string]string{"reserved": "0", "extended": "0", "unreserved": "0", "lost": "1"} {
		if got[series(status)] != want {
			t.Errorf("%s = %q, want %s", status, got[series(status)], want)
		}
	}
	s.Clear()
	if got := scrape(t, reg); len(got) != 0 {
		t.Errorf("after Clear: %v", got)
	}
}
