package integration

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// probe measures the time from before a commit to the consumer at broker 1.
type probe struct {
	mu   sync.Mutex
	sent map[string]time.Time
	took []time.Duration
}

// startProbe publishes a message every few milliseconds until the test ends.
func (w *world) startProbe() *probe {
	w.t.Helper()
	w.queue(1, "probe")
	p := &probe{sent: make(map[string]time.Time)}
	deliveries := w.consume(1, "probe").deliveries
	conn := w.connect()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			body := strconv.Itoa(n)
			p.mu.Lock()
			p.sent[body] = time.Now()
			p.mu.Unlock()
			if _, err := conn.Exec(ctx, `select amqp.publish(1, '', 'probe', $1::text)`, body); err != nil {
				return // the end of the test
			}
			pause(ctx, 5*time.Millisecond)
		}
	})
	running.Go(func() {
		for {
			select {
			case m := <-deliveries:
				p.arrived(m)
			case <-ctx.Done():
				return
			}
		}
	})
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p
}

func (p *probe) arrived(m amqp.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, time.Since(p.sent[string(m.Body)]))
}

// over measures for a time and returns the 99th percentile and how many messages it is of.
func (p *probe) over(t *testing.T, d time.Duration) (p99 time.Duration, n int) {
	t.Helper()
	p.mu.Lock()
	p.took = nil
	p.mu.Unlock()
	pause(t.Context(), d)
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.took)
	if len(p.took) == 0 {
		t.Fatalf("nothing arrived within %s", d)
	}
	return p.took[len(p.took)*99/100], len(p.took)
}

// TestMeasureIsolation stops one of two brokers for a minute under load, and measures what
// the other one's messages notice of it. It is no part of the ordinary run, as its figures
// need a machine that has nothing else to do.
func TestMeasureIsolation(t *testing.T) {
	w := newWorld(t, worldOptions{brokers: 2})
	second, err := testserver.StartRabbitMQ(testserver.RabbitMQOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	w.exec(`update amqp.broker set port = $1, vhost = '/' where broker_id = 2`, second.Port())
	other := *w
	other.rabbit, other.vhosts = second, []string{"/", "/"}
	other.queue(2, loadQueue)
	h := w.history()
	d := w.start()
	l := w.startLoad(loadOptions{pause: 4 * time.Millisecond})
	p := w.startProbe()
	p.over(t, 5*time.Second) // warm

	both, n := p.over(t, 30*time.Second)
	memory := d.peakMemory()
	t.Logf("both brokers up: p99 %s of %d messages, peak memory %d MiB", both.Round(10*time.Microsecond), n, memory>>20)

	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	before := w.lsn(confirmedFlush, w.slot)
	alone, n := p.over(t, 60*time.Second)
	t.Logf("one stopped for 60 s: p99 %s of %d messages, ratio %.2f, peak memory %d MiB", alone.Round(10*time.Microsecond), n,
		float64(alone)/float64(both), d.peakMemory()>>20)
	if float64(alone) > 1.5*float64(both) {
		t.Errorf("the broker that is up is %.2f times slower while the other one is down", float64(alone)/float64(both))
	}
	if grown := d.peakMemory() - memory; grown > 20<<20 {
		t.Errorf("peak memory has grown by %d MiB", grown>>20)
	}
	if now := w.lsn(confirmedFlush, w.slot); now <= before {
		t.Errorf("the slot has not moved on from %s", before)
	}
	if n := w.ownSlots(); n != 1 {
		t.Errorf("%d brokers have a slot of their own", n)
	}

	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	returned := time.Now()
	var caughtUp time.Time
	lane := fmt.Sprintf(`slot="%s_broker_2"`, w.slot)
	await(t, 2*time.Minute, "the broker joins again", func() bool {
		if caughtUp.IsZero() && w.ownSlots() == 1 && d.reading("pgamqp_slot_lag_bytes", lane) < 1<<20 {
			caughtUp = time.Now()
		}
		return w.ownSlots() == 0
	})
	joined := time.Now()
	if caughtUp.IsZero() {
		caughtUp = joined
	}
	t.Logf("caught up %s after the return, joined %s later", caughtUp.Sub(returned).Round(time.Millisecond), joined.Sub(caughtUp).Round(time.Millisecond))
	if joined.Sub(caughtUp) > 10*time.Second {
		t.Errorf("it took %s to join", joined.Sub(caughtUp))
	}
	l.stop()
	w.waitDelivered()
	for broker, world := range map[int]*world{1: w, 2: &other} {
		got := world.take(broker, loadQueue)
		c := compare(slices.DeleteFunc(h.bodies(broker), func(body string) bool { _, err := strconv.Atoi(body); return err == nil }), got)
		c.wantComplete(t)
		t.Logf("broker %d: %d messages, %d of them came again", broker, len(got), len(c.repeated))
	}
}
