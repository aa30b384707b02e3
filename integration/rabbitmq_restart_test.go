package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// faultWindow is the window of daemons here: small, so that it fills soon when the broker
// takes nothing, and so that few messages may come twice.
const faultWindow = 100

// The broker is ended under load, in order and by force.
func TestR12RestartsOfTheBrokerLoseNothingAndRepeatOnlyWhatWasInFlight(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
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
				return max(d.reading("pgamqp_unconfirmed_messages", `broker="1"`), d.reading("pgamqp_unconfirmed_messages", `broker="2"`)) == faultWindow
			})
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		l.waitCommits(100) // the application notices nothing
		before := d.confirmed()
		d.wantRecovery(fault, restart(t, rabbit), before)
		d.waitConnected(2)
	}
	l.waitCommits(20)
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		c := h.compare(broker, loadQueue)
		c.wantRepeatedAtMost(t, faultWindow*len(faults))
		t.Logf("broker %d: %d messages, %d of them came again", broker, c.came, len(c.repeated))
	}
	h.checkLedger()
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// A message is persistent unless it asks not to be.
func TestR11OnlyMessagesThatAskForItAreLostWithTheBrokersMemory(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{rabbit: rabbit})
	w.queue(1, "q")
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'by default')`)
	w.exec(`select amqp.publish(1, '', 'q', 'transient', delivery_mode => 1)`)
	w.exec(`select amqp.publish(1, '', 'q', 'persistent', delivery_mode => 2)`)
	w.waitDelivered() // the transient one is confirmed, too
	if err := rabbit.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := rabbit.Start(); err != nil {
		t.Fatal(err)
	}
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"by default", "persistent"}) {
		t.Errorf("%q have outlived the restart", got)
	}
}

func TestR15PausedBrokerIsWaitedFor(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	testBrokerWait(t, rabbit, 2, 1500*time.Millisecond, func(*daemon) {
		if err := rabbit.Pause(); err != nil {
			t.Fatal(err)
		}
	}, func(*daemon) {
		if err := rabbit.Resume(); err != nil {
			t.Fatal(err)
		}
	})
}

// Frozen for longer than 15 s a node is given up, though its port stays open and the kernel accepts connections for it:
// the attempts to connect end by themselves, too.
func TestR15FrozenNodeIsGivenUpAndComesBack(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{rabbit: rabbit})
	w.queue(1, "q")
	h := w.history()
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	l := w.startTrickle("", "q")
	l.waitCommits(100)
	goroutines := d.metric("go_goroutines")
	if err := rabbit.Pause(); err != nil {
		t.Fatal(err)
	}
	d.waitGivenUp("frozen node", time.Now())
	await(t, startLimit, "the daemon is not ready", func() bool {
		code, said := d.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.HasPrefix(said, "not ready: broker 1 takes no messages for")
	})
	before := d.confirmed()
	if err := rabbit.Resume(); err != nil {
		t.Fatal(err)
	}
	d.wantRecovery("frozen node", time.Now(), before)
	l.stop()
	h.compare(1, "q").wantRepeatedAtMost(t, faultWindow)
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// alarmTime is longer than a connection lives on which nothing is read (15 s): the heartbeats
// must go on both ways.
const alarmTime = 18 * time.Second

func TestR13AlarmIsWaitedFor(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	testBrokerWait(t, rabbit, 1, alarmTime, func(d *daemon) {
		setAlarm(t, rabbit, true)
		await(t, startLimit, "the daemon sees the alarm", func() bool { return d.reading("pgamqp_broker_blocked") == 2 })
	}, func(d *daemon) {
		setAlarm(t, rabbit, false)
		await(t, startLimit, "the daemon sees the end of the alarm", func() bool { return d.reading("pgamqp_broker_blocked") == 0 })
	})
}

// testBrokerWait stops the broker from taking messages for some time, without an end of its
// connections. Nothing has to come again then.
func testBrokerWait(t *testing.T, rabbit *testserver.RabbitMQ, times int, wait time.Duration, hold, release func(*daemon)) {
	w := newWorld(t, worldOptions{brokers: 2, rabbit: rabbit})
	h := w.history()
	// No broker gets a stream of its own, which would be another connection.
	d := w.start("--window-messages", fmt.Sprint(faultWindow), "--detach-after", "0s")
	l := w.startLoad(restartLoad())
	l.waitCommits(20)
	goroutines := d.metric("go_goroutines")
	for range times {
		l.waitCommits(100)
		hold(d)
		await(t, wait+startLimit, "the daemon waits for the broker", func() bool { return d.reading("pgamqp_lag_seconds") > wait.Seconds() })
		before := d.confirmed()
		release(d)
		d.wantRecovery("waited", time.Now(), before)
		waitCaughtUp(d)
	}
	l.stop()
	for broker := 1; broker <= 2; broker++ {
		c := h.compare(broker, loadQueue)
		c.wantExact(t)
		t.Logf("broker %d: %d messages", broker, c.came)
	}
	if n := d.metric("pgamqp_broker_connects_total"); n != 2 {
		t.Errorf("the daemon has connected to its 2 brokers %v times", n)
	}
	h.checkLedger()
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}

// waitCaughtUp waits until messages go out as they come in.
func waitCaughtUp(d *daemon) {
	d.t.Helper()
	await(d.t, startLimit, "the daemon has caught up", func() bool { return d.reading("pgamqp_lag_seconds") < 0.5 })
}
