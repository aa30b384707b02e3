package fakewal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// awaitLimit is how long [Await] waits before it fails the test. It is long
// because it is only ever reached by a test that fails.
const awaitLimit = 15 * time.Second

// TB is what Start and Await need of a test; *testing.T and *rapid.T have it.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Event is something the client did: *Conn (start-up is done), *Query, *Stream
// (streaming has begun), *Status, *CopyDone, *Closed or *NotServed. Nothing
// else implements it.
type Event interface {
	event()
	String() string
}

func (*Conn) event()      {}
func (*Query) event()     {}
func (*Stream) event()    {}
func (*Status) event()    {}
func (*CopyDone) event()  {}
func (*Closed) event()    {}
func (*NotServed) event() {}

// CopyDone says that the client has ended the stream in an orderly way.
type CopyDone struct{ Stream *Stream }

func (e *CopyDone) String() string { return fmt.Sprintf("conn %d copy done", e.Stream.Conn.ID) }

// Closed says that a connection has ended, whoever ended it; also one that was
// refused or not served, so that no *Conn came before.
type Closed struct {
	Conn *Conn
	// Clean is true if the client said goodbye (Terminate).
	Clean bool
	// Err is why the connection ended otherwise; nil when Clean.
	Err error
}

func (e *Closed) String() string {
	return fmt.Sprintf("conn %d closed, clean %t: %v", e.Conn.ID, e.Clean, e.Err)
}

// NotServed says that the client connected while [Server.Admit] was not Serve.
type NotServed struct {
	Admission Admission
	Conn      *Conn
}

func (e *NotServed) String() string { return fmt.Sprintf("not served, admission %d", e.Admission) }

// events is the queue of everything not yet taken by the test.
type events struct {
	mu    sync.Mutex // covers both fields
	queue []Event
	more  chan struct{} // closed and replaced whenever the queue grows
}

func newEvents() *events { return &events{more: make(chan struct{})} }

func (q *events) put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, e)
	close(q.more)
	q.more = make(chan struct{})
}

// take removes the first event that want accepts, and waits for it.
func (q *events) take(ctx context.Context, want func(Event) bool) (Event, error) {
	for {
		q.mu.Lock()
		for i, e := range q.queue {
			if want(e) {
				if i == 0 { // the usual case, and cheap however long the queue is
					q.queue = q.queue[1:]
				} else {
					q.queue = slices.Delete(q.queue, i, i+1)
				}
				q.mu.Unlock()
				return e, nil
			}
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Next takes the oldest event of any kind, and waits for one until ctx ends.
func (s *Server) Next(ctx context.Context) (Event, error) {
	return s.events.take(ctx, func(Event) bool { return true })
}

// Pending is a snapshot of the events nobody has taken yet, oldest first.
func (s *Server) Pending() []Event {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return slices.Clone(s.events.queue)
}

// Await takes the oldest event of kind E and leaves the others in the queue. It
// fails the test, showing what is in the queue, if none comes within 15 seconds.
func Await[E Event](tb TB, s *Server) E {
	tb.Helper()
	return AwaitMatch(tb, s, func(E) bool { return true })
}

// AwaitMatch is [Await] for the oldest event of kind E that match accepts.
func AwaitMatch[E Event](tb TB, s *Server, match func(E) bool) E {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), awaitLimit)
	defer cancel()
	e, err := s.events.take(ctx, func(e Event) bool {
		v, ok := e.(E)
		return ok && match(v)
	})
	if err != nil {
		var zero E
		var have strings.Builder
		for _, e := range s.Pending() {
			fmt.Fprintf(&have, "\n  %v", e)
		}
		tb.Fatalf("await %T: %v; in the queue:%s", zero, err, have.String())
		return zero
	}
	return e.(E)
}
