package replication

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
)

// taken is a message that the sink has taken over.
type taken struct {
	decoder.Message
	done func()
}

// fakeSink is a Sink that the test plays.
type fakeSink struct {
	// confirm says what happens to a message at once; nil: the test calls done.
	confirm func(decoder.Message) bool
	// gate, if not nil, is received from before a message is taken over.
	gate chan struct{}
	// available says whether Drain waits for what is not confirmed.
	available bool

	arrived chan taken

	mu      sync.Mutex // guards all below
	held    int        // taken over, not confirmed, not forgotten
	epoch   int        // how often Drain has forgotten everything
	drained chan struct{}
	all     []taken
}

var errBrokerAway = errors.New("the broker is away")

func newSink() *fakeSink {
	return &fakeSink{arrived: make(chan taken, 100_000), drained: make(chan struct{}, 1)}
}

// confirmAll is a sink whose messages are safe at once.
func confirmAll() *fakeSink {
	s := newSink()
	s.available = true
	s.confirm = func(decoder.Message) bool { return true }
	return s
}

func (s *fakeSink) Publish(ctx context.Context, m decoder.Message, done func()) error {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s.mu.Lock()
	s.held++
	epoch := s.epoch
	var once sync.Once
	k := taken{Message: m, done: func() {
		once.Do(func() {
			if s.current(epoch) {
				done() // before Drain can see that nothing is held
				s.release(epoch)
			}
		})
	}}
	s.all = append(s.all, k)
	s.mu.Unlock()
	s.arrived <- k
	if s.confirm != nil && s.confirm(m) {
		k.done()
	}
	return nil
}

// current tells whether a message was not forgotten meanwhile.
func (s *fakeSink) current(epoch int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return epoch == s.epoch
}

// release counts a confirmation.
func (s *fakeSink) release(epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		return
	}
	if s.held--; s.held == 0 {
		signal(s.drained)
	}
}

func (s *fakeSink) Drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.held == 0 {
			s.mu.Unlock()
			return nil
		}
		if !s.available {
			s.held, s.epoch = 0, s.epoch+1
			s.mu.Unlock()
			return errBrokerAway
		}
		s.mu.Unlock()
		select {
		case <-s.drained:
		case <-ctx.Done():
			s.mu.Lock()
			s.held, s.epoch = 0, s.epoch+1
			s.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

// next waits for the next message.
func (s *fakeSink) next(tb testing.TB) taken {
	tb.Helper()
	return receive(tb, "a message for the sink", s.arrived)
}

// nothing fails if a message has arrived that nobody has taken.
func (s *fakeSink) nothing(tb testing.TB) {
	tb.Helper()
	if len(s.arrived) > 0 {
		tb.Errorf("unexpected message: %s", (<-s.arrived).LSN)
	}
}

// failingSink refuses its first messages.
type failingSink struct {
	*fakeSink
	failures int
}

func (s *failingSink) Publish(ctx context.Context, m decoder.Message, done func()) error {
	if s.failures > 0 {
		s.failures--
		return errBrokerAway
	}
	return s.fakeSink.Publish(ctx, m, done)
}
