package fakewal

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// writeLimit bounds a write to a client that does not read. It is far beyond
// what a passing test needs.
const writeLimit = 15 * time.Second

var (
	errTerminate = errors.New("terminated by the client")
	errRefused   = errors.New("refused by the test")
	errFatal     = errors.New("ended by a fatal error")
)

// Conn is one connection. As an event it says that start-up is done. Its
// methods may be called from any goroutine; on a connection that has ended they
// do nothing.
type Conn struct {
	// ID counts from 1 the connections of the server that sent a start-up message.
	// Others do not count and cause no event: pgconn sends a cancel request, over
	// a connection of its own and in the background, whenever a connection breaks.
	ID int
	// Params are those of the start-up message: user, database, replication, ...
	Params map[string]string

	server *Server
	tcp    *net.TCPConn
	gate   *fakenet.Gate
	in     *pgproto3.Backend // used by the reading goroutine only, and only to read
	stream *Stream           // likewise; nil while none is running

	mu     sync.Mutex // covers the field below and every write; Stream's state too
	silent bool       // write nothing any more
}

func newConn(s *Server, tcp *net.TCPConn) *Conn {
	g := fakenet.NewGate(tcp)
	return &Conn{server: s, tcp: tcp, gate: g, in: pgproto3.NewBackend(g, nil)}
}

func (c *Conn) String() string { return fmt.Sprintf("conn %d open, %v", c.ID, c.Params) }

// Send writes any messages; for those that make sense in a stream see [Stream].
func (c *Conn) Send(messages ...pgproto3.BackendMessage) { c.write(encode(messages...)) }

// Write sends raw bytes.
func (c *Conn) Write(raw []byte) { c.write(raw) }

// Drop closes the TCP connection without a word. What was written before still
// reaches the client, unless it sent something that was never read here.
func (c *Conn) Drop() {
	c.gate.Tear()
	_ = c.tcp.Close()
}

// Reset is Drop with a TCP reset.
func (c *Conn) Reset() {
	c.gate.Tear()
	fakenet.Reset(c.tcp)
}

// Freeze stops reading from the client; writing goes on. What the client sends
// after Freeze has returned becomes no event before Thaw.
func (c *Conn) Freeze() { c.gate.Shut() }

// Thaw takes Freeze back.
func (c *Conn) Thaw() { c.gate.Open() }

// Silence makes the server write nothing more on this connection. With Freeze
// it is what a cut network looks like.
func (c *Conn) Silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
}

// hangUp ends the writing side; the client sees the end of the file behind what
// was written, never a reset. Reading goes on until it has closed its side.
func (c *Conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
	_ = c.tcp.CloseWrite()
}

// encode is only given messages made here or by a test, so an error is a bug.
func encode(messages ...pgproto3.BackendMessage) []byte {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(fmt.Sprintf("fakewal: encode %T: %v", m, err))
		}
	}
	return b
}

func (c *Conn) write(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeLocked(b)
}

// writeLocked needs c.mu. A failed write ends the connection, and with it the
// reading goroutine, which reports it.
func (c *Conn) writeLocked(b []byte) {
	if c.silent {
		return
	}
	_ = c.tcp.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := c.tcp.Write(b); err != nil {
		c.silent = true
		_ = c.tcp.Close()
	}
}

// run serves the connection until it ends.
func (c *Conn) run() {
	err := c.hello()
	if err == nil {
		c.ID = c.server.count()
		err = c.serve()
	}
	c.gate.Tear()
	_ = c.tcp.Close()
	c.server.remove(c)
	if c.ID == 0 {
		return
	}
	clean := errors.Is(err, errTerminate)
	if clean {
		err = nil
	}
	c.server.events.Put(&Closed{Conn: c, Clean: clean, Err: err})
}

// serve goes from the start-up message to the end.
func (c *Conn) serve() error {
	switch mode := Admission(c.server.admission.Load()); mode {
	case Refuse:
		c.server.events.Put(&NotServed{Admission: mode, Conn: c})
		c.Reset()
		return errRefused
	case Ignore:
		c.Silence()
		c.server.events.Put(&NotServed{Admission: mode, Conn: c})
		return c.loop()
	case Serve:
	}
	if err := c.greet(); err != nil {
		return err
	}
	c.server.events.Put(c)
	return c.loop()
}

// hello reads up to the start-up message.
func (c *Conn) hello() error {
	for {
		m, err := c.in.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			c.write([]byte{'N'})
		case *pgproto3.StartupMessage:
			c.Params = m.Parameters
			return nil
		default: // a cancel request wants no answer
			return fmt.Errorf("start-up with %T", m)
		}
	}
}

// greet answers the start-up message, up to ReadyForQuery.
func (c *Conn) greet() error {
	if c.server.config.Startup != nil {
		if e := c.server.config.Startup(c); e != nil {
			c.Send(e.response("FATAL"))
			return errRefused
		}
	}
	c.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{
		{"server_version", c.server.config.Version},
		{"server_encoding", "UTF8"},
		{"client_encoding", "UTF8"},
		{"integer_datetimes", "on"},
		{"standard_conforming_strings", "on"},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, MDY"},
	} {
		c.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	c.Send(&pgproto3.BackendKeyData{ProcessID: uint32(c.ID), SecretKey: []byte{1, 2, 3, 4}}, ready())
	return nil
}

// ready is ReadyForQuery outside a transaction; walsenders know no other.
func ready() *pgproto3.ReadyForQuery { return &pgproto3.ReadyForQuery{TxStatus: 'I'} }

func (c *Conn) loop() error {
	skip := false // until Sync, after an error in the extended protocol
	for {
		m, err := c.in.Receive()
		if err != nil {
			return err
		}
		c.gate.Wait() // bytes may have been buffered before Freeze
		switch m := m.(type) {
		case *pgproto3.Terminate:
			return errTerminate
		case *pgproto3.Query:
			err = c.query(m.String)
		case *pgproto3.CopyData:
			err = c.copyData(m.Data)
		case *pgproto3.CopyDone:
			c.copyDone()
		case *pgproto3.Sync:
			skip = false
			c.Send(ready())
		default:
			if !skip {
				e := Error{Code: "08P01", Message: "extended query protocol not supported in a replication connection"}
				c.Send(e.response("ERROR"))
			}
			skip = true
		}
		if err != nil {
			return err
		}
	}
}
