package fakeamqp

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// Config says how a Server answers. The zero value accepts every login, vhost,
// exchange and queue, and leaves every publish to the test.
//
// The functions run on the reading goroutine of the connection, one at a time
// for each connection. They may call any method of what they are given, but not
// [Server.Close], which waits for them.
type Config struct {
	// Exchanges exist from the start, beside the default exchange and those a
	// client declares. Nil means that every exchange exists.
	Exchanges []string
	// Queues exist from the start. Nil means that every queue exists.
	Queues []string

	// Handler decides a publish at once. Nil means Hold for all.
	Handler func(*Publish) Verdict
	// Login may refuse the credentials with a [*Refusal] (RabbitMQ: 403).
	Login func(user, password string) error
	// Open may refuse the vhost with a [*Refusal] (RabbitMQ: 530).
	Open func(vhost string) error
	// Channel may refuse to open a channel with a [*Refusal].
	Channel func() error
	// Declare may refuse a declaration or binding with a [*Refusal].
	Declare func(*Topology) error

	// FrameMax is the frame_max offered; 0 means 131072. The client may ask for less.
	FrameMax uint32
	// Heartbeat is the interval offered, in whole seconds; 0 means 10 s.
	Heartbeat time.Duration
	// ReadBuffer is the size of the socket's receive buffer, 0 for the system's.
	// A small one makes the client's writes block soon after Freeze.
	ReadBuffer int
}

// Refusal is the error a hook of Config returns to answer with a close: of the
// connection for the codes that AMQP calls hard errors and within the
// handshake, else of the channel.
type Refusal struct {
	Code uint16
	Text string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d %s", r.Code, r.Text) }

func (r *Refusal) hard() bool {
	switch r.Code {
	case 320, 402, 501, 502, 503, 504, 505, 530, 540, 541:
		return true
	}
	return false
}

// Admission says what happens to a new TCP connection.
type Admission int32

// How a Server treats new TCP connections.
const (
	Serve  Admission = iota // as a broker does
	Refuse                  // reset at once: the broker is down
	Ignore                  // accepted and never answered: the broker hangs
)

// Server is the scripted broker. Its methods may be called from any goroutine.
type Server struct {
	config    Config
	listener  net.Listener
	events    *fakenet.Queue[Event]
	exchanges *names
	queues    *names
	admission atomic.Int32
	running   sync.WaitGroup

	mu     sync.Mutex // covers the fields below
	conns  map[*Conn]struct{}
	nextID int
	closed bool
}

// Start listens on a free port of 127.0.0.1 until the test ends.
func Start(tb TB, c Config) *Server {
	tb.Helper()
	s, err := Listen(c)
	if err != nil {
		tb.Fatalf("%v", err)
		return nil
	}
	tb.Cleanup(s.Close)
	return s
}

// Listen is Start for a caller that calls Close itself.
func Listen(c Config) (*Server, error) {
	if c.FrameMax == 0 {
		c.FrameMax = 131072
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fake broker: %w", err)
	}
	s := &Server{
		config: c, listener: l, events: fakenet.NewQueue[Event](), conns: map[*Conn]struct{}{},
		exchanges: newNames(c.Exchanges), queues: newNames(c.Queues),
	}
	s.running.Go(s.accept)
	return s, nil
}

// Addr is the host and port the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is an AMQP URL for user guest and the default vhost.
func (s *Server) URL() string { return "amqp://guest:guest@" + s.Addr() + "/" }

// Admit sets what happens to new TCP connections; open ones are left alone.
func (s *Server) Admit(a Admission) { s.admission.Store(int32(a)) }

// DropAll ends every connection as Conn.Drop does. With Admit(Refuse) before it
// the broker is down.
func (s *Server) DropAll() {
	for _, c := range s.open() {
		c.Drop()
	}
}

// AddExchange makes the exchange exist.
func (s *Server) AddExchange(name string) { s.exchanges.set(name, true) }

// DeleteExchange makes the exchange missing, also when Config.Exchanges is nil.
func (s *Server) DeleteExchange(name string) { s.exchanges.set(name, false) }

// AddQueue makes the queue exist.
func (s *Server) AddQueue(name string) { s.queues.set(name, true) }

// DeleteQueue makes the queue missing, also when Config.Queues is nil.
func (s *Server) DeleteQueue(name string) { s.queues.set(name, false) }

// Close ends all connections and waits for every goroutine of the server. What
// has not been taken from the queue of events stays there. It may be called twice.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.listener.Close() // the second call has nothing left to close
	s.DropAll()
	s.running.Wait()
}

func (s *Server) open() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			return // only Close makes it fail
		}
		tcp := nc.(*net.TCPConn)
		mode := Admission(s.admission.Load())
		if mode == Refuse {
			s.events.Put(&NotServed{Admission: mode})
			fakenet.Reset(tcp)
			continue
		}
		if s.config.ReadBuffer > 0 {
			_ = tcp.SetReadBuffer(s.config.ReadBuffer) // a wish only
		}
		c := s.add(tcp)
		if c == nil {
			continue
		}
		if mode == Ignore {
			c.Silence()
			s.events.Put(&NotServed{Admission: mode, Conn: c})
		}
		s.running.Go(c.run)
	}
}

// add registers a new connection, or closes it if the server has closed.
func (s *Server) add(tcp *net.TCPConn) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = tcp.Close()
		return nil
	}
	s.nextID++
	c := newConn(s, tcp, s.nextID)
	s.conns[c] = struct{}{}
	return c
}

func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// names is a set of names of which all, or only some, exist.
type names struct {
	mu    sync.Mutex // covers known
	known map[string]bool
	rest  bool // whether a name not in known exists
}

func newNames(listed []string) *names {
	n := &names{known: map[string]bool{"": true}, rest: listed == nil}
	for _, name := range listed {
		n.known[name] = true
	}
	return n
}

func (n *names) set(name string, exists bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[name] = exists
}

func (n *names) exists(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e, ok := n.known[name]; ok {
		return e
	}
	return n.rest
}
