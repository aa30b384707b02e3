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

// opened says that a channel is open, so that the lane can deliver unless the broker has an
// alarm. A login alone is not enough: the broker may end each connection right after it.
func (l *lane) opened(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.blocked.Load() { // it is set before onBlocked waits for the lock
		l.down, l.err = time.Time{}, nil
	}
}

// setTrouble says what keeps back the verdict of a message that the broker has looked at.
func (l *lane) setTrouble(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
}

// status returns the state of the lane.
func (l *lane) status() LaneStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LaneStatus{Broker: l.id, Held: l.window.len()}
	s.Down, s.Err = l.unavailable()
	if s.Held == 0 {
		return s
	}
	s.Still = l.moved
	if l.trouble != nil && s.Err == nil {
		s.Err = l.trouble
	}
	return s
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
