package publisher

import (
	"log/slog"
	"sync"
	"time"
)

// lettersLogEvery is how often dead letters of one reason are worth a line in the log.
const lettersLogEvery = 30 * time.Second

// letterLog makes few lines of many dead letters: the first one of each reason has a line at once, all that follow within
// lettersLogEvery have one together at its end, with how many they are and which was the last.
//
// Invariant: the counts of all lines, and of those that wait, are as many as the letters.
type letterLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards all below
	reasons map[Reason]*letterCount
	closed  bool
}

// letterCount is about the dead letters of one reason.
type letterCount struct {
	waiting int // without a line yet
	last    []any
	due     *time.Timer // nil unless a line was written within lettersLogEvery
}

func newLetterLog(log *slog.Logger) *letterLog {
	return &letterLog{log: log, reasons: make(map[Reason]*letterCount)}
}

// add notes a dead letter that is stored.
func (l *letterLog) add(d *DeadLetter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.reasons[d.Reason]
	if c == nil {
		c = &letterCount{}
		l.reasons[d.Reason] = c
	}
	c.waiting++
	c.last = c.last[:0]
	for _, a := range d.Attrs() {
		c.last = append(c.last, a)
	}
	if c.due == nil || l.closed {
		l.write(c)
	}
}

// write writes the line of what waits, and sees to the next one. The lock is held.
func (l *letterLog) write(c *letterCount) {
	c.due = nil
	if c.waiting == 0 {
		return
	}
	l.log.Warn("dead letter", append([]any{slog.Int("count", c.waiting)}, c.last...)...)
	c.waiting = 0
	if !l.closed {
		c.due = time.AfterFunc(lettersLogEvery, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if !l.closed {
				l.write(c)
			}
		})
	}
}

// close writes what waits. What is added afterwards has a line each.
func (l *letterLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.reasons {
		if c.due != nil {
			c.due.Stop()
		}
		l.write(c)
	}
}

// Attrs says in a log which message became a dead letter, and why.
func (d *DeadLetter) Attrs() []slog.Attr {
	return []slog.Attr{
		slog.String("message_id", d.MessageID), slog.String("reason", string(d.Reason)), slog.String("exchange", d.Envelope.Exchange),
		slog.Int("code", int(d.ReplyCode)), slog.String("text", d.ReplyText),
	}
}
