package fakenet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// AwaitLimit is how long [Await] waits before it fails the test. It is long
// because it is only ever reached by a test that fails.
const AwaitLimit = 15 * time.Second

// TB is what the fake servers need of a test; *testing.T and *rapid.T have it.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Queue holds every event not yet taken by the test. It is unbounded, so that a
// client is never held up by a test that does not look.
type Queue[T any] struct {
	mu    sync.Mutex // covers both fields
	queue []T
	more  chan struct{} // closed and replaced whenever the queue grows
}

// NewQueue returns an empty Queue.
func NewQueue[T any]() *Queue[T] { return &Queue[T]{more: make(chan struct{})} }

// Put adds the newest event.
func (q *Queue[T]) Put(e T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, e)
	close(q.more)
	q.more = make(chan struct{})
}

// Take removes the oldest event that want accepts, and waits for it until ctx
// ends.
func (q *Queue[T]) Take(ctx context.Context, want func(T) bool) (T, error) {
	for {
		q.mu.Lock()
		if i := slices.IndexFunc(q.queue, want); i >= 0 {
			e := q.queue[i]
			if i == 0 { // the usual case, and cheap however long the queue is
				q.queue = q.queue[1:]
			} else {
				q.queue = slices.Delete(q.queue, i, i+1)
			}
			q.mu.Unlock()
			return e, nil
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
}

// Next takes the oldest event, and waits for one until ctx ends.
func (q *Queue[T]) Next(ctx context.Context) (T, error) {
	return q.Take(ctx, func(T) bool { return true })
}

// Pending is a snapshot of the events nobody has taken yet, oldest first.
func (q *Queue[T]) Pending() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.queue)
}

// Await takes the oldest event of kind E that match accepts, and leaves the
// others in the queue. It fails the test, showing what is in the queue, if none
// comes within 15 seconds.
func Await[E, T any](tb TB, q *Queue[T], match func(E) bool) E {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), AwaitLimit)
	defer cancel()
	e, err := q.Take(ctx, func(e T) bool {
		v, ok := any(e).(E)
		return ok && match(v)
	})
	if err != nil {
		var none E
		var have strings.Builder
		for _, e := range q.Pending() {
			fmt.Fprintf(&have, "\n  %v", e)
		}
		tb.Fatalf("await %T: %v; in the queue:%s", none, err, have.String())
		return none
	}
	return any(e).(E)
}
