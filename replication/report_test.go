package replication

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// pass lets time pass, and everything happen that is due.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestP12IdleStreamAsksEverySecondAndFollowsTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0x100, time.Minute, confirmAll())
		end := pglogrepl.LSN(0x100)
		r.onStatus(func(s status) {
			if s.ask {
				end += 0x1000 // another database writes
				r.keepalive(end, false)
			}
		})
		pass(10*time.Second + 500*time.Millisecond)
		var asked []time.Time
		for _, s := range r.reports() {
			if s.ask {
				asked = append(asked, s.at)
			}
		}
		if len(asked) != 10 || asked[9].Sub(asked[0]) != 9*time.Second {
			t.Errorf("asked %d times: %v", len(asked), asked)
		}
		if got := r.last(); got.flush != end || got.write != end || got.apply != end {
			t.Errorf("reported %+v, the server is at %s", got, end)
		}
	})
}

func TestBusyStreamDoesNotAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0x100, time.Minute, newSink())
		r.frames(lone(0x200))
		pass(5 * time.Second)
		for _, s := range r.reports() {
			if s.ask {
				t.Errorf("asked though a message is in flight: %+v", s)
			}
		}
	})
}

func TestP13AndP30ReportsComeInTime(t *testing.T) {
	for _, c := range []struct {
		timeout, every time.Duration
	}{
		{0, 10 * time.Second}, // switched off
		{time.Minute, 10 * time.Second},
		{15 * time.Second, 5 * time.Second},
		{3 * time.Second, time.Second},
	} {
		t.Run(c.timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 0x100, c.timeout, newSink())
				r.frames(lone(0x200)) // never confirmed: nothing new to say
				for range 20 {
					pass(c.every)
					r.keepalive(0x200, false) // the server is alive
				}
				all := r.reports()
				for i, s := range all {
					if i > 0 && s.at.Sub(all[i-1].at) > c.every {
						t.Errorf("report %d came %s after the one before", i, s.at.Sub(all[i-1].at))
					}
					if s.flush != 0x100 {
						t.Errorf("reported %s", s.flush)
					}
				}
				if len(all) < 20 || len(all) > 22 {
					t.Errorf("%d reports in %s", len(all), 20*c.every)
				}
			})
		})
	}
}

func TestConfirmationsAreReportedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 1000
		sink := newSink()
		r := newRig(t, 0x100, time.Minute, sink)
		for i := range messages {
			r.frames(lone(pglogrepl.LSN(0x200 + i)))
		}
		pass(500 * time.Millisecond) // the first reports are out
		before := len(r.reports())
		began := time.Now()
		for i := range messages { // a millisecond each
			pass(time.Millisecond)
			sink.next(t).done()
			if got := r.stream.tracker.Flushed(); got != pglogrepl.LSN(0x200+i) {
				t.Fatalf("flushed %s after %d confirmations", got, i+1)
			}
		}
		pass(200 * time.Millisecond)
		after := r.reports()[before:]
		if n := len(after); n < 10 || n > 12 {
			t.Errorf("%d reports in %s", n, time.Since(began))
		}
		for i, s := range after {
			if i > 0 && s.at.Sub(after[i-1].at) < reportPause {
				t.Errorf("report %d came only %s after the one before", i, s.at.Sub(after[i-1].at))
			}
		}
		if got := r.last().flush; got != 0x200+messages-1 {
			t.Errorf("last report %s", got)
		}
	})
}

func TestP13ConfirmationIsReportedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newSink()
		r := newRig(t, 0x100, time.Minute, sink)
		r.frames(lone(0x200))
		pass(5*time.Second + time.Millisecond)
		began := time.Now()
		sink.next(t).done()
		pass(time.Second)
		for _, s := range r.reports() {
			if s.flush == 0x200 {
				if d := s.at.Sub(began); d > reportPause {
					t.Errorf("reported after %s", d)
				}
				return
			}
		}
		t.Error("not reported")
	})
}

func TestP14KeepaliveIsReportedOnlyBehindFinishedUnits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newSink()
		r := newRig(t, 0x100, time.Minute, sink)
		r.frames(transaction(0x180, 0x200, 0x230)...)
		r.frames(lone(0x260))
		r.keepalive(0x300, false)
		pass(time.Second)
		first, second := sink.next(t), sink.next(t)
		if got := r.last().flush; got != 0x100 {
			t.Errorf("reported %s with nothing confirmed", got)
		}
		second.done()
		pass(time.Second)
		if got := r.last().flush; got != 0x100 {
			t.Errorf("reported %s with the first message unconfirmed", got)
		}
		first.done()
		pass(time.Second)
		if got := r.last(); got.flush != 0x300 || got.write != 0x300 {
			t.Errorf("reported %+v, want 0/300", got)
		}
	})
}

// What is left of the transaction lies below the server's position.
func TestKeepaliveInsideATransactionIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0x100, time.Minute, confirmAll())
		tx := transaction(0x180, 0x200, 0x230)
		r.frames(tx[:2]...)
		for range 3 {
			r.keepalive(0x400, true)
			pass(time.Second)
		}
		if got := r.last(); got.flush != 0x100 || got.write > 0x180 {
			t.Errorf("reported %+v inside the transaction", got)
		}
		r.frames(tx[2])
		pass(time.Second)
		if got := r.last().flush; got != 0x230 {
			t.Errorf("reported %s behind the transaction, want 0/230", got)
		}
	})
}

func TestRequestedReplyIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newSink()
		r := newRig(t, 0x100, time.Minute, sink)
		r.frames(lone(0x200))
		pass(time.Second)
		before := len(r.reports())
		r.keepalive(0x200, true) // nothing new to say: the server wants to know we live
		synctest.Wait()
		if n := len(r.reports()); n != before+1 {
			t.Errorf("%d replies", n-before)
		}

		pass(time.Second)
		sink.next(t).done()
		r.keepalive(0x300, true) // something new: at once, whatever was sent a moment ago
		synctest.Wait()
		if got := r.last(); got.flush != 0x300 || !got.at.Equal(time.Now()) {
			t.Errorf("reported %+v at %s", got, time.Now())
		}
	})
}

// While the sink blocks, nothing is received: that is our choice, not silence.
func TestP29BlockedSinkKeepsReportingAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := confirmAll()
		sink.gate = make(chan struct{})
		r := newRig(t, 0x100, 3*time.Second, sink)
		const messages = 20 // the inbox holds three
		for i := range messages {
			r.frames(lone(pglogrepl.LSN(0x200 + i)))
		}
		pass(time.Hour)
		all := r.reports()
		if len(all) < 3600 {
			t.Errorf("%d reports in an hour", len(all))
		}
		for i, s := range all {
			if s.flush != 0x100 || i > 0 && s.at.Sub(all[i-1].at) > time.Second {
				t.Fatalf("report %d: %+v, the one before: %+v", i, s, all[i-1])
			}
		}
		if n := len(sink.arrived); n != 0 {
			t.Errorf("%d messages passed the gate", n)
		}
		close(sink.gate)
		pass(time.Second)
		for i := range messages {
			if got := sink.next(t).LSN; got != pglogrepl.LSN(0x200+i) {
				t.Errorf("message %d is %s", i, got)
			}
		}
		if got := r.last().flush; got != 0x200+messages-1 {
			t.Errorf("reported %s", got)
		}
	})
}

func TestP09WrongPositionEndsTheStreamUnreported(t *testing.T) {
	for name, spoil := range map[string]func(*stream){
		"zero":             func(s *stream) { s.tracker.flushed = 0 },
		"beyond received":  func(s *stream) { s.tracker.flushed = 0x101 },
		"behind last time": func(s *stream) { s.report.last = 0x101 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 0x100, time.Minute, confirmAll())
				pass(500 * time.Millisecond)
				before := len(r.reports())
				s := r.stream
				s.tracker.mu.Lock()
				spoil(s)
				s.tracker.mu.Unlock()
				var order *OrderError
				if err := r.end(); !errors.As(err, &order) || Retryable(err) {
					t.Errorf("ended with %v", err)
				}
				if n := len(r.reports()); n != before {
					t.Errorf("%d reports more", n-before)
				}
			})
		})
	}
}

func TestUnitThatEndsBeforeAnotherEndsTheStream(t *testing.T) {
	for name, frames := range map[string][]fakewal.Frame{
		"a lone message": {lone(0x300), lone(0x200)},
		"a transaction":  append([]fakewal.Frame{lone(0x300)}, transaction(0x180, 0x200, 0x230)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 0x100, time.Minute, confirmAll())
				r.frames(frames...)
				var order *OrderError
				if err := r.end(); !errors.As(err, &order) || Retryable(err) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}
