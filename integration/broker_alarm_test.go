package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A broker with an alarm lets clients in as always, and says nothing before their first message.
func TestR14AlarmFromBeforeTheConnectionIsSeen(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{rabbit: rabbit})
	w.queue(1, "q")
	setAlarm(t, rabbit, true)
	d := w.start()
	d.waitConnected(1)
	if d.metric("pgamqp_broker_blocked") != 0 {
		t.Error("the daemon knows of the alarm before it has sent anything")
	}
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 1000) n`)
	await(t, startLimit, "the daemon sees the alarm", func() bool { return d.reading("pgamqp_broker_blocked") == 1 })
	await(t, startLimit, "the daemon says that messages wait", func() bool {
		_, said := d.get("/readyz")
		return strings.Contains(said, "alarm")
	})
	before := d.confirmed()
	setAlarm(t, rabbit, false)
	d.wantRecovery("alarm from before the connection", time.Now(), before)
	compare(good(1000), w.received(1, "q")).wantExact(t)
	if n := d.metric("pgamqp_broker_connects_total"); n != 1 {
		t.Errorf("the daemon has connected %v times", n)
	}
	w.checkLeftovers(d)
}

// The library's Close waits for the broker without limit; a stop and a change of the definition do not.
func TestR16CloseDuringAnAlarmOrAFreezeEnds(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{rabbit: rabbit})
	w.queue(1, "q")
	pause := func(on bool) {
		end := rabbit.Resume
		if on {
			end = rabbit.Pause
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	sent := 0
	publish := func() { // more than the window holds
		w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series($1::int, $2) n`, sent+1, sent+1000)
		sent += 1000
	}
	const shutdown, limit = 2 * time.Second, 15 * time.Second
	for _, fault := range []struct {
		name string
		set  func(on bool)
	}{
		{"alarm", func(on bool) { setAlarm(t, rabbit, on) }},
		{"freeze", pause},
	} {
		d := w.start("--window-messages", fmt.Sprint(faultWindow), "--shutdown-timeout", shutdown.String())
		d.waitConnected(1)
		fault.set(true)
		publish()
		await(t, startLimit, "messages wait", func() bool { return d.reading("pgamqp_lag_seconds") > 0.5 })
		began := time.Now()
		if code := d.stop(); code != 0 {
			t.Errorf("%s: exit code %d", fault.name, code)
		}
		took := time.Since(began)
		t.Logf("%s: the daemon has stopped after %s", fault.name, took.Round(10*time.Millisecond))
		if took > limit {
			t.Errorf("%s: the daemon needed %s to stop", fault.name, took)
		}
		fault.set(false)
	}

	// The connection to a frozen broker is given up for another one.
	d := w.start("--window-messages", fmt.Sprint(faultWindow))
	w.waitDelivered()
	goroutines := d.metric("go_goroutines")
	p := startProxy(t, rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	w.waitDelivered()
	await(t, startLimit, "the daemon goes through the proxy", func() bool { return d.reading("pgamqp_broker_connects_total") == 2 })
	p.freeze()
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series($1::int, $2) n`, sent+1, sent+50)
	sent += 50
	await(t, startLimit, "messages wait", func() bool { return d.reading("pgamqp_lag_seconds") > 0.5 })
	began, before := time.Now(), d.confirmed()
	w.exec(`update amqp.broker set port = $1`, rabbit.Port())
	await(t, startLimit, "the daemon uses the other address", func() bool { return d.confirmed() > before })
	t.Logf("the frozen connection was left %s after the change", time.Since(began).Round(10*time.Millisecond))

	got := w.received(1, "q")
	c := compare(good(sent), got)
	c.wantComplete(t)
	// Each publish is a transaction, which comes again as a whole to a daemon that is started anew.
	if n := len(c.repeated); n > sent {
		t.Errorf("%d messages came again", n)
	}
	p.thaw() // or the broker would learn only from missing heartbeats that the connection has ended
	w.checkLeftovers(d)
	checkGoroutines(t, d, goroutines)
}
