// Package backoff spaces out attempts: each failure doubles the longest possible delay, up to a bound, and the delay
// is drawn at random below it ("full jitter"), so that daemons that failed together do not come back together.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the delay between the attempts of one thing. The zero value is not useful; see [New]. It belongs to the
// goroutine that makes the attempts.
//
// Invariant: minimum <= ceiling <= maximum, and every delay is between minimum and ceiling.
type Backoff struct {
	minimum, maximum time.Duration
	ceiling          time.Duration // of the next delay
}

// New returns a Backoff whose first delay is minimum, and no delay longer than maximum. A minimum below one
// millisecond counts as one, so that no mistake makes a busy loop.
func New(minimum, maximum time.Duration) *Backoff {
	minimum = max(minimum, time.Millisecond)
	return &Backoff{minimum: minimum, maximum: max(minimum, maximum), ceiling: minimum}
}

// Next returns how long to wait before the next attempt, and makes the one after it longer.
func (b *Backoff) Next() time.Duration {
	ceiling := b.ceiling
	if ceiling > b.maximum/2 { // compared like this, because doubling could overflow
		b.ceiling = b.maximum
	} else {
		b.ceiling = 2 * ceiling
	}
	// The minimum is the floor of the draw: a delay of next to nothing would be an attempt for nothing.
	return b.minimum + rand.N(ceiling-b.minimum+1)
}

// Wait waits for [Backoff.Next], or until ctx ends, and then returns the cause of that.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Sleep waits for d, or until ctx ends, and then returns the cause of that.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reset says that an attempt was a success: the next delay is the minimum again.
func (b *Backoff) Reset() { b.ceiling = b.minimum }
