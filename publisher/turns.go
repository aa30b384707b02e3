package publisher

import (
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// Bounds of the delay between two attempts to connect to one host. A host that was
// not reached may come back any moment. One that has refused the login does so until
// somebody changes something; if that is the definition, it is tried at once.
const (
	unreachableMin, unreachableMax = 100 * time.Millisecond, time.Second
	deniedMin, deniedMax           = 500 * time.Millisecond, 30 * time.Second
	// lastingConnection is how long a connection has to last to make up for the failures
	// before it.
	lastingConnection = time.Minute
)

// turns says which host of a broker to try next, and when: the others follow at
// once when one fails, but each is given its own rest, so that neither one bad host
// nor a list of them is tried without end. It does no I/O and knows no clock.
type turns struct {
	hosts []turn
	next  int // where to begin to look
}

// turn is what is known of one host.
type turn struct {
	unreachable, denied *backoff.Backoff
	due                 time.Time // not before
	repeats             backoff.Repeats
}

func newTurns(n int) *turns {
	t := &turns{hosts: make([]turn, n)}
	for i := range t.hosts {
		t.hosts[i].unreachable = backoff.New(unreachableMin, unreachableMax)
		t.hosts[i].denied = backoff.New(deniedMin, deniedMax)
	}
	return t
}

// pick returns the host that is next, and how long to wait for its turn.
func (t *turns) pick(now time.Time) (host int, wait time.Duration) {
	host = t.next
	for i := range t.hosts {
		h := (t.next + i) % len(t.hosts)
		if !t.hosts[h].due.After(now) {
			return h, 0
		}
		if t.hosts[h].due.Before(t.hosts[host].due) {
			host = h
		}
	}
	return host, t.hosts[host].due.Sub(now)
}

// failed notes that a host was not reached, or that the connection to it has ended
// with an error, after it had lasted for some time. It tells whether that is worth
// a line in the log.
func (t *turns) failed(host int, err error, lasted time.Duration, now time.Time) (worth bool) {
	h := &t.hosts[host]
	if lasted > lastingConnection {
		h.unreachable.Reset()
		h.denied.Reset()
	}
	rest := h.unreachable
	if Denied(err) {
		rest = h.denied
	}
	h.due = now.Add(rest.Next())
	t.next = (host + 1) % len(t.hosts)
	return h.repeats.Worth(err.Error(), now)
}
