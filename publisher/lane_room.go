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
	l.measureBytes()
	signal(l.work)
	return nil
}

// measureBytes tells of the bytes that the window holds. The lock is held.
func (l *lane) measureBytes() {
	if l.window.bytes != l.told {
		l.metrics.Window.Bytes.Set(float64(l.window.bytes))
		l.tell(l.window.bytes)
	}
}

// uncount takes the window's bytes out of what is known to be held: nothing more will come of it.
func (l *lane) uncount() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(0)
}

// tell tells of bytes that are held. The lock is held.
func (l *lane) tell(held int) {
	if l.cfg.Hold != nil {
		l.cfg.Hold(held - l.told)
	}
	l.told = held
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

// rewind makes all that has no verdict wait for publishing again. What had its verdict behind
// the first of these took room until now.
func (l *lane) rewind() {
	l.mu.Lock()
	l.window.rewind()
	l.measure()
	waits := !l.waits.IsZero()
	l.mu.Unlock()
	if waits {
		l.tellRoom(true)
	}
}
