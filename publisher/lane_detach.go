package publisher

import (
	"errors"
	"sync"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

// giveUp ends the lane because another stream delivers what it holds, which is done
// as far as this one is concerned. It returns the first message that has no verdict,
// if there is one.
func (l *lane) giveUp() (first decoder.Position, ok bool) {
	l.mu.Lock()
	given := l.window.unclaimed()
	l.halts++ // for good: nothing more is published, and no confirm is awaited
	l.end()
	l.window.clear()
	l.measure()
	l.mu.Unlock()
	for _, e := range given {
		e.done()
	}
	if len(given) == 0 {
		return decoder.Position{}, false
	}
	return given[0].message.Position(), true
}

// fullAfter is how long a lane that is down may keep others waiting behind a window that
// is full.
const fullAfter = time.Second

// holdsUp tells whether the lane keeps others waiting: its oldest message has waited for
// the given time, or, with a window that is full, for fullAfter without a broker that
// takes anything. since is when that message came.
func (l *lane) holdsUp(after time.Duration) (since time.Time, full, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.window.front()
	if e == nil {
		return time.Time{}, false, false
	}
	full = !l.waits.IsZero()
	if down, _ := l.unavailable(); full && !down.IsZero() && time.Since(down) >= fullAfter {
		after = min(after, fullAfter)
	}
	return e.addedAt, full, time.Since(e.addedAt) >= after
}

// fedSince tells whether a message was added after t.
func (l *lane) fedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fed.After(t)
}

// hold keeps the lane from connecting before release. It must be called before run.
func (l *lane) hold() {
	l.released = make(chan struct{})
	l.release = sync.OnceFunc(func() { close(l.released) })
	l.err = errors.New("waits until what comes first is delivered by the broker's own stream")
}
