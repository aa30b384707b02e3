package replication

import (
	"context"
	"sync"

	"github.com/pgamqp/pgamqp/decoder"
)

// delivery is a message on its way to the Sink.
type delivery struct {
	message decoder.Message
	done    func()
}

func (d delivery) size() int { return d.message.Size() + len(d.message.Prefix) + 128 }

// inbox joins the goroutine that owns the replication connection with the one
// that calls the Sink, so that status messages go out while Publish blocks.
//
// Invariant: it holds at most maxCount messages and maxBytes bytes, but always
// accepts a message when empty, however large that one is.
type inbox struct {
	maxCount, maxBytes int

	mu     sync.Mutex
	queue  []delivery
	bytes  int
	closed bool

	filled  chan struct{} // capacity 1: something was added, or the inbox was closed
	emptied chan struct{} // capacity 1: something was taken
}

func newInbox(maxCount, maxBytes int) *inbox {
	return &inbox{
		maxCount: maxCount,
		maxBytes: maxBytes,
		filled:   make(chan struct{}, 1),
		emptied:  make(chan struct{}, 1),
	}
}

// offer adds d and returns true, or returns false if the inbox is full. After
// false, a receive from emptied tells that it is worth trying again. Only one
// goroutine may offer.
func (b *inbox) offer(d delivery) bool {
	b.mu.Lock()
	if len(b.queue) > 0 && (len(b.queue) >= b.maxCount || b.bytes+d.size() > b.maxBytes) {
		b.mu.Unlock()
		return false
	}
	b.queue = append(b.queue, d)
	b.bytes += d.size()
	b.mu.Unlock()
	signal(b.filled)
	return true
}

// close says that no more is offered; take still returns what is left.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	signal(b.filled)
}

// take returns everything queued, oldest first, and blocks while there is
// nothing. It returns nil once the inbox is closed and empty, or ctx ends. spare
// is an emptied slice to be reused as the next queue, or nil.
func (b *inbox) take(ctx context.Context, spare []delivery) []delivery {
	for {
		b.mu.Lock()
		if len(b.queue) > 0 {
			batch := b.queue
			b.queue, b.bytes = spare[:0], 0
			b.mu.Unlock()
			signal(b.emptied)
			return batch
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return nil
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return nil
		}
	}
}

// size returns the bytes queued.
func (b *inbox) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// signal wakes a receiver of a channel with capacity 1, or leaves the wake-up
// that is already there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
