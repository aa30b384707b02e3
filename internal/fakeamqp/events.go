package fakeamqp

import (
	"context"
	"fmt"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// TB is what Start and Await need of a test; *testing.T and *rapid.T have it.
type TB = fakenet.TB

// Event is something the client did: *Conn (a connection is open), *Publish,
// *Topology, *ChannelClosed, *Closed or *NotServed. Nothing else implements it.
type Event interface {
	event()
	String() string
}

func (*Conn) event()          {}
func (*Publish) event()       {}
func (*Topology) event()      {}
func (*ChannelClosed) event() {}
func (*Closed) event()        {}
func (*NotServed) event()     {}

// NotServed says that the client connected while [Server.Admit] was not Serve.
type NotServed struct {
	Admission Admission
	Conn      *Conn // nil if refused
}

func (e *NotServed) String() string { return fmt.Sprintf("not served, admission %d", e.Admission) }

// ChannelClosed says that the client closed one channel.
type ChannelClosed struct {
	Conn    *Conn
	Channel *Channel
}

func (e *ChannelClosed) String() string {
	return fmt.Sprintf("conn %d closed channel %d", e.Conn.ID, e.Channel.ID)
}

// Closed says that a connection has ended, whoever ended it. A connection that
// ended within the handshake is reported too, though no *Conn came before.
type Closed struct {
	Conn *Conn
	// Clean is true after the close handshake, begun by either side.
	Clean bool
	// Err is why the connection ended otherwise; nil when Clean.
	Err error
}

func (e *Closed) String() string {
	return fmt.Sprintf("conn %d closed, clean %t: %v", e.Conn.ID, e.Clean, e.Err)
}

// Next takes the oldest event of any kind, and waits for one until ctx ends.
func (s *Server) Next(ctx context.Context) (Event, error) { return s.events.Next(ctx) }

// Pending is a snapshot of the events nobody has taken yet, oldest first.
func (s *Server) Pending() []Event { return s.events.Pending() }

// Await takes the oldest event of kind E and leaves the others in the queue. It
// fails the test, showing what is in the queue, if none comes within 15 seconds.
func Await[E Event](tb TB, s *Server) E {
	tb.Helper()
	return AwaitMatch(tb, s, func(E) bool { return true })
}

// AwaitMatch is [Await] for the oldest event of kind E that match accepts.
func AwaitMatch[E Event](tb TB, s *Server, match func(E) bool) E {
	tb.Helper()
	return fakenet.Await(tb, s.events, match)
}
