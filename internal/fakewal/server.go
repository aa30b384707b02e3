package fakewal

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// Config says how a Server answers. The zero value lets everyone in and starts
// every stream.
//
// The functions run on the reading goroutine of the connection. They may call
// any method of what they are given, but not [Server.Close], which waits for them.
type Config struct {
	// System is what IDENTIFY_SYSTEM tells first; [Server.SetSystem] changes it.
	System System
	// Version is the parameter server_version; "" means 15.20.
	Version string
	// Settings are the answers to SHOW, beside a wal_sender_timeout of 1min.
	Settings map[string]string
	// Startup may refuse a connection, usually with [Fatal]. It is also the place
	// to treat the first connection unlike the second: see [Conn.ID].
	Startup func(*Conn) *Error
	// Query may answer a simple query, START_REPLICATION included. Nil, and a nil
	// answer, mean what the server does by itself.
	Query func(*Query) *Answer
}

// System is the answer to IDENTIFY_SYSTEM. Zero fields get a value of their own.
type System struct {
	ID       string
	Timeline int32
	Position pglogrepl.LSN
	Database string
}

// Error is an error or a notice of the server. An empty Severity means ERROR, or
// FATAL within start-up, or WARNING in a notice.
type Error struct {
	Severity, Code, Message, Detail, Hint string
}

// Fatal is an Error after which the server closes the connection.
func Fatal(code, message string) *Error {
	return &Error{Severity: "FATAL", Code: code, Message: message}
}

func (e *Error) response(severity string) *pgproto3.ErrorResponse {
	if e.Severity != "" {
		severity = e.Severity
	}
	return &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity,
		Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint,
	}
}

// Admission says what happens to a connection that has sent its start-up message.
type Admission int32

// How a Server treats new connections.
const (
	Serve  Admission = iota // as PostgreSQL does
	Refuse                  // reset: the server is down
	Ignore                  // never answered: the server hangs
)

// Server is the scripted walsender. Its methods may be called from any goroutine.
type Server struct {
	config    Config
	listener  net.Listener
	events    *fakenet.Queue[Event]
	admission atomic.Int32
	running   sync.WaitGroup

	mu      sync.Mutex // covers the fields below
	system  System
	conns   map[*Conn]struct{}
	counted int // connections with a start-up message
	closed  bool
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fake walsender: %w", err)
	}
	if c.Version == "" {
		c.Version = "15.20"
	}
	s := &Server{config: c, listener: l, events: fakenet.NewQueue[Event](), conns: map[*Conn]struct{}{}}
	s.SetSystem(c.System)
	s.running.Go(s.accept)
	return s, nil
}

// Addr is the host and port the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is a connection string for a normal connection; add replication=database
// to its options, or use ReplicationURL.
func (s *Server) URL() string { return "postgres://fake@" + s.Addr() + "/fake?sslmode=disable" }

// ReplicationURL is a connection string for a logical replication connection.
func (s *Server) ReplicationURL() string { return s.URL() + "&replication=database" }

// SetSystem changes what IDENTIFY_SYSTEM tells, as a failover or a restore does.
func (s *Server) SetSystem(y System) {
	if y.ID == "" {
		y.ID = "7000000000000000001"
	}
	if y.Timeline == 0 {
		y.Timeline = 1
	}
	if y.Position == 0 {
		y.Position = 0x1500000
	}
	if y.Database == "" {
		y.Database = "fake"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.system = y
}

// Admit sets what happens to new connections; open ones are left alone.
func (s *Server) Admit(a Admission) { s.admission.Store(int32(a)) }

// DropAll ends every connection as Conn.Drop does: the server has crashed.
func (s *Server) DropAll() {
	s.mu.Lock()
	all := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.Drop()
	}
}

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

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			return // only Close makes it fail
		}
		if c := s.add(nc.(*net.TCPConn)); c != nil {
			s.running.Go(c.run)
		}
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
	c := newConn(s, tcp)
	s.conns[c] = struct{}{}
	return c
}

// count numbers a connection that has sent its start-up message.
func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted++
	return s.counted
}

func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
