package publisher

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// moodyBroker answers at random, and knows what it said. Everything it does it does
// under its lock, so what it notes stands in the order of the wire.
type moodyBroker struct {
	mu       sync.Mutex // guards all below
	random   *rand.Rand
	faults   int                 // how many more it may have
	arrived  []string            // message ids of the first arrivals, in order
	times    map[string]int      // how often each arrived
	held     []*fakeamqp.Publish // not answered yet
	returned map[*fakeamqp.Publish]bool
	acked    map[string]bool // and not returned
	came     map[string]bool // back, at least once
	nacked   map[string]bool
	closed   bool // a channel, for whatever was on it
}

func newMoodyBroker(seed uint64, faults int) *moodyBroker {
	return &moodyBroker{
		random: rand.New(rand.NewPCG(seed, 1)), faults: faults, times: map[string]int{},
		returned: map[*fakeamqp.Publish]bool{}, acked: map[string]bool{}, came: map[string]bool{}, nacked: map[string]bool{},
	}
}

func (b *moodyBroker) take(p *fakeamqp.Publish) fakeamqp.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := p.Properties.MessageID
	if b.times[id]++; b.times[id] == 1 {
		b.arrived = append(b.arrived, id)
	}
	if b.random.IntN(12) == 0 { // a property of the message's way, not of the message
		p.Return(312, "NO_ROUTE")
		b.returned[p], b.came[id] = true, true
	}
	b.held = append(b.held, p)
	if b.random.IntN(3) > 0 {
		b.act()
	}
	return fakeamqp.Hold
}

// act answers something that is held, or fails.
func (b *moodyBroker) act() {
	if len(b.held) == 0 {
		return
	}
	i := b.random.IntN(len(b.held))
	p := b.held[i]
	switch b.random.IntN(12) {
	case 0, 1, 2:
		for _, q := range b.held {
			if q.Channel == p.Channel && q.Tag <= p.Tag {
				b.ack(q)
			}
		}
		p.AckMultiple()
		b.held = slices.DeleteFunc(b.held, func(q *fakeamqp.Publish) bool { return q.Channel == p.Channel && q.Tag <= p.Tag })
		return
	case 3:
		if b.faults--; b.faults >= 0 {
			b.nacked[p.Properties.MessageID] = true
			p.Nack()
			b.held = slices.Delete(b.held, i, i+1)
			return
		}
	case 4:
		if b.faults--; b.faults >= 0 {
			switch b.random.IntN(4) {
			case 0:
				p.Conn.Drop()
			case 1:
				p.Conn.Close(320, "CONNECTION_FORCED")
			default:
				b.closed = true
				p.Channel.Close(406, "PRECONDITION_FAILED")
			}
			b.held = nil
			return
		}
	}
	b.ack(p)
	p.Ack()
	b.held = slices.Delete(b.held, i, i+1)
}

func (b *moodyBroker) ack(p *fakeamqp.Publish) {
	if !b.returned[p] {
		b.acked[p.Properties.MessageID] = true
	}
}

// Whatever happens on the way: first arrivals are in the order of publishing, each
// message is done once, and only if it is safe.
func TestOrderOverFailures(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			const messages, faults = 60, 4
			b := newMoodyBroker(seed, faults)
			w := newWorld(t, fakeamqp.Config{Handler: b.take}, func(c *Config) { c.WindowMessages = 16 })
			end := make(chan struct{})
			var acting sync.WaitGroup
			acting.Go(func() { // what is held gets an answer when nothing arrives, too
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						b.mu.Lock()
						b.act()
						b.mu.Unlock()
					case <-end:
						return
					}
				}
			})
			defer acting.Wait()
			defer close(end)
			var published []string
			for i := range messages {
				// Equal content, so that only the message id tells which one came back.
				published = append(published, numbered(w.to([]string{"x", "y"}[i/7%2], "same")))
			}
			w.awaitAll()

			b.mu.Lock()
			defer b.mu.Unlock()
			if !slices.Equal(b.arrived, published) {
				t.Errorf("first arrivals %v", b.arrived)
			}
			letters := map[string]Reason{}
			for _, d := range w.dead() {
				if letters[d.Origin] != "" {
					t.Errorf("%s: a second dead letter, %s", d.Origin, d.Reason)
				}
				letters[d.Origin] = d.Reason
			}
			for n, id := range published {
				reason, dead := letters[id]
				switch {
				case !dead && !b.acked[id]:
					t.Errorf("message %d is done, but neither delivered nor stored", n)
				case reason == ReasonUnroutable && !b.came[id], reason == ReasonNacked && !b.nacked[id]:
					t.Errorf("message %d is a dead letter because %s, which the broker never said", n, reason)
				case dead && reason != ReasonUnroutable && !b.closed:
					t.Errorf("message %d is a dead letter because %s", n, reason)
				}
				if b.times[id] > 1+2*faults {
					t.Errorf("message %d was sent %d times for %d faults", n, b.times[id], faults)
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for n := range published {
				if w.finished[n] != 1 {
					t.Errorf("message %d was done %d times", n, w.finished[n])
				}
			}
		})
	}
}
