package replication

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pglogrepl"
)

// A server that is shutting down asks again as soon as it has an answer, for as
// long as something is not confirmed.
func TestP16AndP18ServerThatShutsDownIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0x100, time.Minute, newSink())
		r.frames(lone(0x200)) // never confirmed
		pass(time.Second)
		before := len(r.reports())
		began := time.Now()
		r.onStatus(func(status) { r.keepalive(0x200, true) })
		r.keepalive(0x200, true)
		err := r.end()
		took := time.Since(began)
		if !errors.Is(err, errServerStopping) || took > stoppingGrace+time.Second || took < stoppingGrace {
			t.Errorf("ended after %s: %v", took, err)
		}
		if n := len(r.reports()) - before; n > 2*20 {
			t.Errorf("%d replies in %s", n, took)
		}
	})
}

// In its last moments the broker may still confirm: that is reported.
func TestWhatIsConfirmedInTheGraceIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newSink()
		r := newRig(t, 0x100, time.Minute, sink)
		r.frames(lone(0x200), lone(0x240))
		pass(time.Second)
		r.onStatus(func(status) { r.keepalive(0x240, true) })
		r.keepalive(0x240, true)
		pass(stoppingGrace)
		sink.next(t).done()
		if err := r.end(); !errors.Is(err, errServerStopping) {
			t.Error(err)
		}
		if got := r.last().flush; got != 0x200 {
			t.Errorf("reported %s, want 0/200", got)
		}
	})
}

func TestServerThatAsksNowAndThenIsNotLetGo(t *testing.T) {
	for name, every := range map[string]time.Duration{
		"with the usual pace":          30 * time.Second,
		"four times a second":          250 * time.Millisecond,
		"quickly, its position moving": time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 0x100, time.Minute, newSink())
				r.frames(lone(0x200))
				pass(time.Second)
				end := pglogrepl.LSN(0x200)
				for began := time.Now(); time.Since(began) < max(20*every, stoppingWithin+2*stoppingGrace); {
					if every < stoppingWithin/stoppingAfter {
						end++
					}
					r.keepalive(end, true)
					pass(every)
				}
				select {
				case err := <-r.ended:
					t.Errorf("let go: %v", err)
				default:
				}
			})
		})
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	for _, c := range []struct{ timeout, silence time.Duration }{
		{0, 2 * time.Minute},
		{time.Minute, 2 * time.Minute},
		{2 * time.Second, 10 * time.Second},
	} {
		t.Run(c.timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 0x100, c.timeout, confirmAll())
				began := time.Now()
				err := r.end()
				if took := time.Since(began); !errors.Is(err, errSilent) || took < c.silence || took > c.silence+10*time.Second {
					t.Errorf("ended after %s: %v", took, err)
				}
			})
		})
	}
}

// With everything full nothing is received, so that the keepalives of a shutdown
// are not seen: somebody else has to tell.
func TestServerThatIsSaidToShutDownIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newSink()
		sink.gate = make(chan struct{}) // never opens
		r := newRig(t, 0x100, time.Minute, sink)
		for i := range 20 {
			r.frames(lone(pglogrepl.LSN(0x200 + i)))
		}
		r.keepalive(0x300, true)
		pass(time.Minute)
		select {
		case err := <-r.ended:
			t.Fatalf("ended without being told: %v", err)
		default:
		}
		began := time.Now()
		session := &Session{}
		session.ServerStopping() // no stream yet: nothing to do
		session.current.Store(r.stream)
		session.ServerStopping()
		if err := r.end(); !errors.Is(err, errServerStopping) || !Retryable(err) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took < stoppingGrace || took > stoppingGrace+time.Second {
			t.Errorf("let go after %s", took)
		}
	})
}
