package publisher

import (
	"errors"
	"log/slog"
	"time"
)

// setDown says that the lane cannot deliver, and why; setUp that it can.
func (l *lane) setDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.IsZero() {
		l.down = time.Now()
	}
	l.err = err
}

func (l *lane) setUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.err = time.Time{}, nil
}

// status returns since when the lane is down (zero: it is not), why, and how many
// messages it holds.
func (l *lane) status() (down time.Time, err error, held int) { //nolint:revive,staticcheck // the error is a fact here, not a result
	l.mu.Lock()
	defer l.mu.Unlock()
	down, err = l.unavailable()
	return down, err, l.window.len()
}

func (l *lane) onBlocked(blocked bool, reason string) {
	l.metrics.SetBlocked(blocked)
	if blocked {
		l.setDown(errors.New("the broker has an alarm and takes no messages: " + reason))
		l.log.Warn("blocked by broker", slog.String("reason", reason))
		return
	}
	l.setUp()
	l.log.Info("resumed by broker")
}
