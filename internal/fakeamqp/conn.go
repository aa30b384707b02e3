package fakeamqp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// writeLimit bounds a write to a client that does not read. It is far beyond
// what a passing test needs.
const writeLimit = 15 * time.Second

// errCleanEnd ends the reading loop after a close handshake.
var errCleanEnd = errors.New("closed")

// Conn is one connection. As an event it says that the connection is open. Its
// methods may be called from any goroutine; on a connection that has ended they
// do nothing, for a reply may always come too late.
type Conn struct {
	// ID counts the TCP connections of the server from 1.
	ID int
	// User and VHost are those of the handshake.
	User, VHost string
	// Properties is the client's undecoded property table.
	Properties []byte
	// FrameMax and Heartbeat are the values the client settled on.
	FrameMax  uint32
	Heartbeat time.Duration

	server   *Server
	tcp      *net.TCPConn
	gate     *fakenet.Gate
	in       *bufio.Reader
	channels map[uint16]*Channel // used by the reading goroutine only
	done     chan struct{}       // closed when the reading goroutine ends

	mu      sync.Mutex // covers the fields below and every write; Channel.open too
	closing bool       // connection.close has been sent: write and heed nothing else
	silent  bool       // write nothing any more
}

func newConn(s *Server, tcp *net.TCPConn, id int) *Conn {
	g := fakenet.NewGate(tcp)
	return &Conn{
		ID: id, FrameMax: s.config.FrameMax, server: s, tcp: tcp, gate: g, in: bufio.NewReader(g),
		channels: map[uint16]*Channel{}, done: make(chan struct{}),
	}
}

func (c *Conn) String() string {
	return fmt.Sprintf("conn %d open, user %q, vhost %q", c.ID, c.User, c.VHost)
}

// Block tells the client that the broker takes no publishes (connection.blocked).
// It only says so; use Freeze as well to stop reading.
func (c *Conn) Block(reason string) {
	c.write(methodFrame(0, connectionBlocked, appendShort(nil, reason)))
}

// Unblock takes Block back.
func (c *Conn) Unblock() { c.write(methodFrame(0, connectionUnblocked, nil)) }

// Close closes the connection with a code, as an operator or an error does. It
// does not wait for the client's answer; Closed is the event for that.
func (c *Conn) Close(code uint16, text string) { c.closeFor(code, text, 0) }

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

// Freeze stops reading from the client; writing, heartbeats included, goes on.
// What the client sends after Freeze has returned becomes no event before Thaw.
func (c *Conn) Freeze() { c.gate.Shut() }

// Thaw takes Freeze back.
func (c *Conn) Thaw() { c.gate.Open() }

// Silence makes the server write nothing more on this connection, not even
// heartbeats. With Freeze it is what a stopped broker process looks like.
func (c *Conn) Silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
}

// HalfFrame writes the first half of a frame, then Silence.
func (c *Conn) HalfFrame() {
	b := methodFrame(1, basicAck, confirmArgs(1, false))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeLocked(b[:len(b)/2])
	c.silent = true
}

// Write sends raw bytes.
func (c *Conn) Write(raw []byte) { c.write(raw) }

func (c *Conn) write(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeLocked(b)
}

// writeLocked needs c.mu. A failed write ends the connection, and with it the
// reading goroutine, which reports it.
func (c *Conn) writeLocked(b []byte) {
	if c.silent || c.closing {
		return
	}
	_ = c.tcp.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := c.tcp.Write(b); err != nil {
		c.silent = true
		_ = c.tcp.Close()
	}
}

func (c *Conn) closeFor(code uint16, text string, cause method) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeLocked(methodFrame(0, connectionClose, closeArgs(code, text, cause)))
	c.closing = true
}

func (c *Conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// run serves the connection until it ends.
func (c *Conn) run() {
	err := c.handshake()
	if err == nil {
		c.server.events.Put(c)
		c.server.running.Go(c.beat)
		err = c.loop()
	}
	c.gate.Tear()
	_ = c.tcp.Close()
	close(c.done)
	c.server.remove(c)
	clean := errors.Is(err, errCleanEnd)
	if clean {
		err = nil
	}
	c.server.events.Put(&Closed{Conn: c, Clean: clean, Err: err})
}

// beat sends heartbeats at half the agreed interval.
func (c *Conn) beat() {
	if c.Heartbeat <= 0 {
		return
	}
	tick := time.NewTicker(c.Heartbeat / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.write(appendFrame(nil, frameHeartbeat, 0, nil))
		case <-c.done:
			return
		}
	}
}

func (c *Conn) loop() error {
	for {
		f, err := readFrame(c.in, c.FrameMax)
		c.gate.Wait() // bytes may have been buffered before Freeze
		if large := (*errFrameTooLarge)(nil); errors.As(err, &large) {
			c.closeFor(501, "FRAME_ERROR - "+large.Error(), 0)
			continue
		}
		if err != nil {
			return err
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

// frame acts on one frame; an error ends the connection.
func (c *Conn) frame(f frame) error {
	if f.kind == frameHeartbeat {
		return nil
	}
	if f.kind != frameMethod {
		if !c.isClosing() {
			c.content(f)
		}
		return nil
	}
	a := &args{b: f.payload}
	m := method(a.uint32())
	switch {
	case m == connectionClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closing = false // close-ok is due even if both sides close at once
		c.writeLocked(methodFrame(0, connectionCloseOk, nil))
		c.closing = true
		return errCleanEnd
	case m == connectionCloseOk:
		return errCleanEnd
	case c.isClosing():
		return nil
	case m == channelOpen:
		return c.openChannel(f.channel)
	}
	ch := c.channels[f.channel]
	if ch == nil {
		c.closeFor(504, fmt.Sprintf("CHANNEL_ERROR - channel %d is not open", f.channel), m)
		return nil
	}
	return ch.method(m, a)
}

// content passes a header or body frame to its channel.
func (c *Conn) content(f frame) {
	ch := c.channels[f.channel]
	if ch == nil {
		c.closeFor(504, fmt.Sprintf("CHANNEL_ERROR - channel %d is not open", f.channel), 0)
		return
	}
	if !ch.content(f) {
		c.closeFor(505, "UNEXPECTED_FRAME - content that no publish announced", 0)
	}
}

func (c *Conn) openChannel(id uint16) error {
	if id == 0 || c.channels[id] != nil {
		c.closeFor(504, fmt.Sprintf("CHANNEL_ERROR - channel %d cannot be opened", id), channelOpen)
		return nil
	}
	if open := c.server.config.Channel; open != nil {
		if refusal, is := errors.AsType[*Refusal](open()); is {
			c.closeFor(refusal.Code, refusal.Text, channelOpen)
			return nil
		}
	}
	c.channels[id] = &Channel{Conn: c, ID: id, open: true}
	c.write(methodFrame(id, channelOpenOk, binary.BigEndian.AppendUint32(nil, 0)))
	return nil
}
