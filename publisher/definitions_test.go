package publisher

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// Without a broker there is no connection, so all of it can live in a bubble.
func TestDefinitionsAreReadEveryNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var reads []time.Duration
		p := New(Config{Brokers: func(context.Context, uint32) ([]Broker, error) {
			reads = append(reads, time.Since(began))
			if len(reads) == 2 {
				return nil, errTableFull{}
			}
			return []Broker{{ID: 1}}, nil // without a host: no broker
		}}, quiet(), Metrics{Brokers: metrics.NewPublisher(prometheus.NewRegistry())})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		<-time.After(40 * time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for i := range reads {
			reads[i] = reads[i].Round(time.Second)
		}
		want := []time.Duration{0, 15 * time.Second, 15 * time.Second, 30 * time.Second}
		if !slices.Equal(reads, want) || len(p.Status()) != 0 {
			t.Errorf("read at %v, want %v; status %v", reads, want, p.Status())
		}
	})
}

// A lane that delivers nothing is why somebody changes its broker, so only one that works is waited for.
func TestChangeIsNotHeldUpByALaneThatDeliversNothing(t *testing.T) {
	for name, c := range map[string]struct {
		begin func(*lane, *entry)
		waits time.Duration
	}{
		"works":   {func(l *lane, _ *entry) { l.setUp() }, settleBefore},
		"is down": {func(*lane, *entry) {}, 0},
		"is held up": {func(l *lane, e *entry) {
			l.setUp()
			(&pump{lane: l, refused: make(chan struct{}, 1)}).hold(e, verdict{reason: ReasonUnroutable})
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newBareLane(t)
				p := &Publisher{lanes: map[int32]*lane{1: l}, loaded: true}
				e := &entry{done: func() {}}
				l.window.add(e)
				l.window.take()
				c.begin(l, e)
				<-time.After(time.Second)
				began := time.Now()
				b := Broker{ID: 1, Hosts: []Host{{Host: "another"}}, Policy: Policy{OnReject: Drop}}
				p.define(t.Context(), []Broker{b})
				if waited := time.Since(began); waited != c.waits || !l.has(b) {
					t.Errorf("changed after %s, want %s", waited, c.waits)
				}
			})
		})
	}
}

// Each reading is a session of the database: a window that is full for moments, as under load, is no reason for one.
func TestStreamIsBlockedOnlyByALaneThatHasNoRoomForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBareLane(t)
		p := &Publisher{lanes: map[int32]*lane{1: l}}
		add := func() *entry {
			e := &entry{done: func() {}, size: l.window.maxBytes / 2}
			if err := l.add(t.Context(), e); err != nil {
				t.Error(err)
			}
			return e
		}
		waits := func(d time.Duration, want bool) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if p.streamBlocked() != want {
				t.Errorf("blocked: %v, want %v", !want, want)
			}
		}
		entries := []*entry{add(), add()}
		waits(time.Hour, false) // full, and nobody comes
		for range 10 {
			added := make(chan *entry)
			go func() { added <- add() }()
			waits(refreshBlocked/2, false)
			l.take()
			l.resolve(entries[0])
			entries = append(entries[1:], <-added)
		}
		ended := make(chan *entry)
		go func() { ended <- add() }()
		waits(refreshBlocked, true)
		l.take()
		l.resolve(entries[0])
		<-ended
		waits(0, false)
	})
}

func TestPublishBeforeRunWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		p := New(Config{Brokers: func(context.Context, uint32) ([]Broker, error) { return nil, nil }}, quiet(),
			Metrics{Brokers: metrics.NewPublisher(reg), Received: metrics.NewReplication(reg, "s").Received})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errTableFull{})
		defer cancel()
		err := p.Publish(ctx, message(0, publication("x", "a")), func() { t.Error("done") })
		if !errors.Is(err, errTableFull{}) {
			t.Errorf("got %v", err)
		}
	})
}

// Definitions are read anew for a refused message only if that can change the verdict, and once for it.
func TestDefinitionsAreReadForARefusedMessageOnlyIfTheyCanBeOld(t *testing.T) {
	var known atomic.Bool // the key of the messages that tell of one
	tells := func(m decoder.Message) bool { return decoder.Kind(m.Content[1]) == decoder.KindBrokersChanged }
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, func(c *Config) {
		read := c.Brokers
		c.Brokers = func(ctx context.Context, xid uint32) ([]Broker, error) {
			known.Store(xid != 0)
			return read(ctx, xid)
		}
		c.Open = func(m decoder.Message) ([]byte, error) {
			if tells(m) && known.Load() {
				return m.Content, nil
			}
			return nil, errors.New("forged")
		}
		c.Outdated = tells
	})
	for range 50 {
		w.publish(publication("x", "forged"))
	}
	w.awaitAll()
	asked := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.asked)
	}
	if n := asked(); n != 1 || len(w.dead()) != 50 {
		t.Errorf("definitions were read %d times; %d dead letters", n, len(w.dead()))
	}
	w.define(true, w.brokers...)
	w.awaitAll()
	if n := asked(); n != 3 || len(w.dead()) != 50 { // to open it, and because it says so
		t.Errorf("definitions were read %d times; %d dead letters", n, len(w.dead()))
	}
}
