package publisher

import (
	"context"
	"errors"
	"time"
)

// errRetired says that the broker was deleted, or that its messages go another way.
var errRetired = errors.New("the broker was deleted from amqp.broker")

// add appends an entry and blocks while the window is full. Only one goroutine
// adds. errRetired means that the broker is no more.
func (l *lane) add(ctx context.Context, e *entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.window.full(e.size) {
		if err := l.awaitRoom(ctx, e.size); err != nil {
			return err
		}
	}
	if l.gone {
		return errRetired
	}
	e.addedAt = time.Now()
	l.fed = e.addedAt
	if l.window.len() == 0 {
		l.moved, l.trouble = e.addedAt, nil
	}
	l.window.add(e)
	l.metrics.Window.Bytes.Set(float64(l.window.bytes))
	signal(l.work)
	return nil
}

// awaitRoom waits until the window takes an entry of the given size. The lock is held
// before and after.
func (l *lane) awaitRoom(ctx context.Context, size int) error {
	l.waits = time.Now()
	l.metrics.Window.Backpressure.Start()
	defer func() {
		l.waits = time.Time{}
		l.metrics.Window.Backpressure.Stop()
	}()
	for l.window.full(size) {
		if err := l.awaitSpace(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepsWaiting returns for how long add has waited for room.
func (l *lane) keepsWaiting() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits.IsZero() {
		return 0
	}
	return time.Since(l.waits)
}

// gatherPause is how long add leaves a little room unused, waiting for more. A window
// that is full holds messages for much longer.
const gatherPause = 5 * time.Millisecond

// awaitSpace waits until it is worth looking whether the window has room. A broker that
// is busy confirms a few at a time: were each few replaced at once, every message would
// be a change of goroutine and a write of its own. The lock is held before and after.
func (l *lane) awaitSpace(ctx context.Context) error {
	l.mu.Unlock()
	defer l.mu.Lock()
	var enough <-chan time.Time
	space := l.space
	for {
		select {
		case <-l.roomy:
			return nil
		case <-space:
			space, enough = nil, time.After(gatherPause)
		case <-enough:
			return nil
		case <-l.retired:
			return errRetired
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tellRoom wakes add.
func (l *lane) tellRoom(roomy bool) {
	signal(l.space)
	if roomy {
		signal(l.roomy)
	}
}
