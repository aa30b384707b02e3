package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// faultWindow is the window of daemons here: small, so that it fills soon when the broker
// takes nothing, and so that few messages may come twice.
const faultWindow = 100

// TestBrokerFaults breaks a RabbitMQ of its own. It takes long to start, so all share it, one
// after the other.
func TestBrokerFaults(t *testing.T) {
	t.Parallel()
	rabbit, err := testserver.StartRabbitMQ(testserver.RabbitMQOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rabbit.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of RabbitMQ:\n%s", rabbit.LogTail())
		}
	})
	t.Run("restarts lose nothing and repeat only what was in flight", func(t *testing.T) {
		testBrokerRestarts(t, rabbit)
	})
	t.Run("a pause is waited for", func(t *testing.T) {
		testBrokerWait(t, rabbit, func(*daemon) {
			if err := rabbit.Pause(); err != nil {
				t.Fatal(err)
			}
		}, func(*daemon) {
			if err := rabbit.Resume(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("an alarm is waited for", func(t *testing.T) {
		watermark := func(fraction string) {
			if _, err := rabbit.Ctl(withDeadline(t, sqlLimit), "set_vm_memory_high_watermark", fraction); err != nil {
				t.Fatal(err)
			}
		}
		testBrokerWait(t, rabbit, func(d *daemon) {
			watermark("0.000001")
			await(t, startLimit, "the daemon sees the alarm", func() bool { return d.metric("pgamqp_broker_blocked") == 2 })
		}, func(d *daemon) {
			watermark("0.4")
			await(t, startLimit, "the daemon sees the end of the alarm", func() bool { return d.metric("pgamqp_broker_blocked") == 0 })
		})
	})
}

// testBrokerRestarts ends the broker under load, in order and by force.
func testBrokerRestarts(t *testing.T, rabbit *testserver.RabbitMQ) {
	t.Cleanup(func() { _ = rabbit.Resume() }) // for a test that has failed
	w := newWorld(t, worldOptions{brokers: 2, rabbit: rabbit})
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startLoad(restartLoad())
	l.waitCommits(20)
	goroutines := d.metric("go_goroutines")
	// An orderly stop first: a node that is killed soon after it started forgets its queues.
	faults := []string{"stop", "kill with full windows", "kill"}
	for _, fault := range faults {
		waitCaughtUp(d)
		l.waitCommits(100)
		end := rabbit.Kill
		switch fault {
		case "stop":
			end = rabbit.Stop
		case "kill with full windows":
			if err := rabbit.Pause(); err != nil {
				t.Fatal(err)
			}
			await(t, startLimit, "a window is full", func() bool { // then the other one gets nothing more
				return max(d.metric("pgamqp_unconfirmed_messages", `broker="1"`), d.metric("pgamqp_unconfirmed_messages", `broker="2"`)) == faultWindow
			})
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		l.waitCommits(100) // the application notices nothing
		if err := rabbit.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		await(t, startLimit, "both brokers are connected again", func() bool { return d.metric("pgamqp_broker_connected") == 2 })
		t.Logf("%s: recovered %s after RabbitMQ was ready", fault, time.Since(began).Round(time.Millisecond))
	}
	l.waitCommits(20)
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		got := w.received(broker, loadQueue)
		c := compare(h.bodies(broker), got)
		c.wantComplete(t)
		if n := len(c.repeated); n > faultWindow*len(faults) {
			t.Errorf("broker %d: %d messages came again, more than %d windows hold", broker, n, len(faults))
		}
		t.Logf("broker %d: %d messages, %d of them came again", broker, len(got), len(c.repeated))
	}
	h.checkLedger()
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// testBrokerWait stops the broker from taking messages, without an end of its connections.
// Nothing has to come again then.
func testBrokerWait(t *testing.T, rabbit *testserver.RabbitMQ, hold, release func(*daemon)) {
	t.Cleanup(func() { _ = rabbit.Resume() }) // for a test that has failed
	w := newWorld(t, worldOptions{brokers: 2, rabbit: rabbit})
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startLoad(restartLoad())
	for range 2 {
		l.waitCommits(100)
		hold(d)
		await(t, startLimit, "the daemon waits for the broker", func() bool { return d.metric("pgamqp_lag_seconds") > 1.5 })
		release(d)
		waitCaughtUp(d)
	}
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		got := w.received(broker, loadQueue)
		compare(h.bodies(broker), got).wantExact(t)
		t.Logf("broker %d: %d messages", broker, len(got))
	}
	if n := d.metric("pgamqp_broker_connects_total"); n != 2 {
		t.Errorf("the daemon has connected to its 2 brokers %v times", n)
	}
	h.checkLedger()
	w.checkLeftovers(d)
}

// waitCaughtUp waits until messages go out as they come in.
func waitCaughtUp(d *daemon) {
	d.t.Helper()
	await(d.t, startLimit, "the daemon has caught up", func() bool { return d.metric("pgamqp_lag_seconds") < 0.5 })
}
