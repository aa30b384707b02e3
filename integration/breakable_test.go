package integration

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// breakables is how many RabbitMQ nodes there are for tests that break a whole node: it takes
// seconds to start, so these tests wait for each other. The shared node is broken by nobody.
const breakables = 2

// newBreakables returns the places of the nodes, still empty.
func newBreakables() chan *testserver.RabbitMQ {
	c := make(chan *testserver.RabbitMQ, breakables)
	for range breakables {
		c <- nil
	}
	return c
}

// breakable returns a node for the test to do with as it likes. It must run again at the end.
func breakable(t *testing.T) *testserver.RabbitMQ {
	t.Helper()
	rabbit := <-shared.breakable
	t.Cleanup(func() {
		if t.Failed() && rabbit != nil { // who knows what state it is in
			t.Logf("log of RabbitMQ:\n%s", rabbit.LogTail())
			if err := rabbit.Close(); err != nil {
				t.Error(err)
			}
			rabbit = nil
		}
		shared.breakable <- rabbit
	})
	if rabbit == nil {
		var err error
		if rabbit, err = testserver.StartRabbitMQ(testserver.RabbitMQOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = rabbit.Resume() }) // for a test that has failed: daemons end in time
	return rabbit
}

// setAlarm sets or clears the memory alarm of a node.
func setAlarm(t *testing.T, rabbit *testserver.RabbitMQ, on bool) {
	t.Helper()
	watermark := map[bool]string{true: "0.000001", false: "0.4"}[on]
	if _, err := rabbit.Ctl(withDeadline(t, sqlLimit), "set_vm_memory_high_watermark", watermark); err != nil {
		t.Fatal(err)
	}
}

// recoverLimit is how soon after the end of a fault a new message must be delivered. A daemon pauses for a second at most
// between two attempts to connect; the rest is for a busy machine. One that pauses for half a minute is found out.
const recoverLimit = 15 * time.Second

// confirmed returns how many messages the brokers have confirmed to the daemon.
func (d *daemon) confirmed(labels ...string) float64 {
	d.t.Helper()
	n, _, _ := d.sum("pgamqp_confirmed_messages_total", labels...)
	return n
}

// waitConnected waits until the daemon has connections to so many brokers.
func (d *daemon) waitConnected(brokers float64) {
	d.t.Helper()
	await(d.t, startLimit, fmt.Sprintf("%v brokers are connected", brokers), func() bool {
		return d.reading("pgamqp_broker_connected") == brokers
	})
}

// wantRecovery waits until a broker confirms more than it had during a fault, and logs how long after the fault's end
// that is.
func (d *daemon) wantRecovery(what string, end time.Time, before float64, labels ...string) {
	d.t.Helper()
	await(d.t, recoverLimit, what+": messages are delivered again", func() bool { return d.confirmed(labels...) > before })
	d.t.Logf("%s: the first new message was delivered %s after the end of the fault", what, time.Since(end).Round(time.Millisecond))
}

// restart starts a node and returns when its port was open: from then on a client may log in.
func restart(t *testing.T, rabbit *testserver.RabbitMQ) (accepted time.Time) {
	t.Helper()
	ended := make(chan struct{})
	opened := make(chan time.Time, 1)
	go func() {
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for {
			if c, err := net.DialTimeout("tcp", rabbit.Addr(), time.Second); err == nil {
				_ = c.Close()
				opened <- time.Now()
				return
			}
			select {
			case <-again.C:
			case <-ended:
				opened <- time.Now()
				return
			}
		}
	}()
	err := rabbit.Start()
	close(ended)
	if err != nil {
		t.Fatal(err)
	}
	return <-opened
}
