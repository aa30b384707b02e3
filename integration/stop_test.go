package integration

import (
	"testing"
	"time"
)

// A daemon whose broker is away ends when it is told to, with exit code 0, and what it
// holds is sent by the next one.
func TestO02StopWhileTheBrokerIsDownLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exec(`update amqp.broker set port = 1`) // where nobody listens
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	d.waitLog("no connection to broker")
	began := time.Now()
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("ended after %s", took)
	}
	w.exec(`update amqp.broker set port = $1`, w.rabbit.Port())
	w.start()
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
