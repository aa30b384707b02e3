package replication

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

const (
	// reportEvery bounds the time between two reports; less if wal_sender_timeout asks
	// for it.
	reportEvery = 10 * time.Second
	// reportPause coalesces reports: confirmations move the position thousands of
	// times a second.
	reportPause = 100 * time.Millisecond
	// askEvery is how often an idle stream asks the server for its position. The
	// answer brings the position forward over WAL that has nothing for us, so that an
	// idle slot retains none.
	askEvery = time.Second
	// replyPause bounds the answers to keepalives that bring nothing new. A server
	// that is shutting down sends the next one as soon as it has an answer: without
	// the pause, 19 000 a second.
	replyPause = 50 * time.Millisecond

	// A server that shuts down asks for replies with an unchanged position, again and
	// again, and ends only when all is confirmed. stoppingAfter of them within
	// stoppingWithin, and grace more for the broker to confirm, and we let go. In
	// normal operation it asks once in half a wal_sender_timeout.
	stoppingAfter  = 10
	stoppingWithin = 2 * time.Second
	stoppingGrace  = time.Second

	goodbyeTimeout = 3 * time.Second
)

// reporter remembers what was reported and when the next report is due. Only the
// owner of the stream uses it, but for pending.
type reporter struct {
	// pending is set by whoever wakes the owner and cleared when it looks, so that
	// thousands of confirmations cost one wake-up.
	pending atomic.Bool

	every   time.Duration
	silence time.Duration // after which the connection counts as dead

	last    pglogrepl.LSN // reported
	lastAt  time.Time
	askedAt time.Time
	next    time.Time // when keepReporting wants to be called again
	heard   bool      // something was received since heardAt was set
	heardAt time.Time
	owed    bool // a keepalive asked for a reply and did not get one yet

	// The server's requests that came with an unchanged position: how many, since
	// when, at which position, and when that was enough to see that it is stopping.
	asks       int
	asksSince  time.Time
	asksAt     pglogrepl.LSN
	stoppingAt time.Time
}

// begin sets the times of a stream that starts now. walSenderTimeout is the
// server's, 0 if switched off.
func (r *reporter) begin(walSenderTimeout time.Duration, now time.Time) {
	r.every, r.silence = reportEvery, 2*time.Minute
	if walSenderTimeout > 0 {
		r.every = min(r.every, walSenderTimeout/3)
		r.silence = max(2*walSenderTimeout, 10*time.Second)
	}
	r.lastAt, r.askedAt, r.heardAt = now, now, now
}

// keepReporting sends the report that is due, if one is, and sets when Read is
// interrupted for the next. The owner calls it after each interruption.
func (s *stream) keepReporting(now time.Time) error {
	r := &s.report
	s.hooks.ticked()
	s.metrics.Inbox.Bytes.Set(float64(s.inbox.size()))
	r.pending.Store(false) // before Flushed: a later confirmation wakes again
	moved := s.tracker.Flushed() != r.last
	idle := s.tracker.Idle() && !s.decoder.InTransaction()

	if r.heard {
		r.heard, r.heardAt = false, now
	} else if now.Sub(r.heardAt) >= r.silence {
		return fmt.Errorf("%w: nothing received for %s", errSilent, r.silence)
	}
	if s.serverStopping.Load() {
		s.letGo(now)
	}
	if !r.stoppingAt.IsZero() && now.Sub(r.stoppingAt) >= stoppingGrace {
		return errServerStopping
	}

	ask := idle && now.Sub(r.askedAt) >= askEvery
	pause := now.Sub(r.lastAt)
	if ask || pause >= r.every || moved && pause >= reportPause || r.owed && pause >= replyPause {
		if err := s.sendStatus(now, ask); err != nil {
			return err
		}
		moved = false
	}

	next := r.lastAt.Add(r.every)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	sooner(r.heardAt.Add(r.silence))
	if idle {
		sooner(r.askedAt.Add(askEvery))
	}
	if moved {
		r.pending.Store(true) // the deadline does it: no wake-ups until then
		sooner(r.lastAt.Add(reportPause))
	}
	if r.owed {
		sooner(r.lastAt.Add(replyPause))
	}
	if !r.stoppingAt.IsZero() {
		sooner(r.stoppingAt.Add(stoppingGrace))
	}
	s.raw.readUntil(next)
	r.next = next
	return nil
}

// attend waits for c and keeps reporting meanwhile. Not receiving is our own
// choice then, so silence is no sign of anything.
func (s *stream) attend(ctx context.Context, c <-chan struct{}) error {
	for {
		s.raw.rest()
		s.report.heard = true
		now := time.Now()
		if err := s.keepReporting(now); err != nil {
			return err
		}
		timer := time.NewTimer(s.report.next.Sub(now))
		select {
		case <-c:
			timer.Stop()
			return nil
		case <-s.woken:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

// handleKeepalive enters the server's position and answers if it asks for it: at
// once if there is something new to say, else with the next report.
func (s *stream) handleKeepalive(k decoder.Keepalive) error {
	s.metrics.Keepalives.Inc()
	if !s.decoder.InTransaction() {
		s.tracker.Keepalive(k.End)
	}
	if !k.ReplyRequested {
		return nil
	}
	r, now := &s.report, time.Now()
	if s.tracker.Flushed() != r.last {
		r.asks = 0
		return s.sendStatus(now, false)
	}
	if k.End != r.asksAt || now.Sub(r.asksSince) > stoppingWithin {
		r.asks, r.asksAt, r.asksSince = 0, k.End, now
	}
	r.asks++
	if r.asks >= stoppingAfter {
		s.letGo(now)
	}
	r.owed = true
	return s.keepReporting(now)
}

// letGo notes that the server is shutting down: the stream ends after stoppingGrace.
func (s *stream) letGo(now time.Time) {
	if s.report.stoppingAt.IsZero() {
		s.report.stoppingAt = now
		s.log.Warn("server is shutting down and waits for confirmations", slog.String("slot", s.cfg.Slot),
			slog.Duration("grace", stoppingGrace))
	}
}

// sendStatus reports the flushed position. ask wants the server's position back.
func (s *stream) sendStatus(now time.Time, ask bool) error {
	r := &s.report
	flushed, received := s.tracker.Flushed(), s.tracker.Received()
	// A position of zero makes the library report everything as flushed; one beyond
	// what was received the server would accept, and skip all below it.
	if flushed == 0 || flushed > received || flushed < r.last {
		return order(fmt.Errorf("refuse to report %s: received up to %s, last report %s", flushed, received, r.last))
	}
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: received,
		WALFlushPosition: flushed,
		WALApplyPosition: flushed,
		ReplyRequested:   ask,
	})
	if err != nil {
		s.metrics.StatusUpdates.Error.Inc()
		return fmt.Errorf("report position: %w", err)
	}
	s.metrics.StatusUpdates.Sent.Inc()
	s.log.Debug("position reported", slog.Any("confirmed", flushed), slog.Any("received", received))
	r.last, r.lastAt, r.owed = flushed, now, false
	if ask {
		r.askedAt = now
	}
	s.hooks.reported(flushed)
	return nil
}
