package fakewal

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/fakenet"
)

// epoch is the zero of the server's times, 2000-01-01, in Unix microseconds.
const epoch = 946684800_000000

// Stream is one logical replication stream. As an event it says that the client
// has started it; nothing but CopyBothResponse has been sent then (a real server
// goes on with a keepalive at its start position). Its methods may be called
// from any goroutine; on a stream that has ended they do nothing.
type Stream struct {
	Conn *Conn
	// SQL is the whole command, Slot and From its slot and start position.
	SQL  string
	Slot string
	From pglogrepl.LSN
	// Options are those for the plugin, unquoted.
	Options map[string]string

	// Covered by Conn.mu.
	running  bool // false: send nothing, heed no status
	done     bool // CopyDone has been sent
	statuses []Status
}

func (st *Stream) String() string { return fmt.Sprintf("conn %d stream %s", st.Conn.ID, st.SQL) }

// Status is a standby status update of the client.
type Status struct {
	Stream              *Stream
	Write, Flush, Apply pglogrepl.LSN
	Time                time.Time // the client's clock
	Reply               bool      // the client asks for a keepalive
}

func (s *Status) String() string {
	return fmt.Sprintf("conn %d status write %s flush %s apply %s reply %t", s.Stream.Conn.ID, s.Write, s.Flush, s.Apply, s.Reply)
}

// Send writes frames, each as one XLogData.
func (st *Stream) Send(frames ...Frame) {
	var messages []pgproto3.BackendMessage
	for _, f := range frames {
		messages = append(messages, f.copyData())
	}
	st.send(messages...)
}

// Keepalive writes a primary keepalive message.
func (st *Stream) Keepalive(walEnd pglogrepl.LSN, replyRequested bool) {
	st.send(keepalive(walEnd, replyRequested))
}

// CopyData writes one CopyData message with any content.
func (st *Stream) CopyData(data []byte) { st.send(&pgproto3.CopyData{Data: data}) }

// Notice writes a notice; its severity is WARNING unless e says otherwise.
func (st *Stream) Notice(e *Error) { st.send((*pgproto3.NoticeResponse)(e.response("WARNING"))) }

// Fail ends the stream by an error of the server. After an ERROR the connection
// stays open, ready for a query, and status messages are dropped; after FATAL it
// is closed.
func (st *Stream) Fail(e *Error) {
	if r := e.response("ERROR"); r.Severity == "ERROR" {
		st.end(r, ready())
	} else {
		st.end(r)
		st.Conn.hangUp()
	}
}

// CopyDone ends the sending side of the stream. When the client has answered
// with its own CopyDone the connection is ready for a query.
func (st *Stream) CopyDone() {
	st.send(&pgproto3.CopyDone{})
	st.Conn.mu.Lock()
	defer st.Conn.mu.Unlock()
	st.done = true
}

// Shutdown ends the stream and the connection as a server does that is being
// stopped and has sent everything: CommandComplete, then end of file.
func (st *Stream) Shutdown() {
	st.end(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
	st.Conn.hangUp()
}

// HalfFrame writes the first half of a frame, then nothing more on this
// connection (see [Conn.Silence]).
func (st *Stream) HalfFrame(f Frame) {
	b := encode(f.copyData())
	st.Conn.mu.Lock()
	defer st.Conn.mu.Unlock()
	st.Conn.writeLocked(b[:len(b)/2])
	st.Conn.silent = true
}

// Statuses are all status updates of this stream so far, oldest first, whether
// taken as events or not.
func (st *Stream) Statuses() []Status {
	st.Conn.mu.Lock()
	defer st.Conn.mu.Unlock()
	return slices.Clone(st.statuses)
}

// AwaitFlush takes status events of this stream until one has reached want, and
// gives it. It fails the test if the client reports more than want, ever, or not
// so much within 15 seconds.
func (st *Stream) AwaitFlush(tb TB, want pglogrepl.LSN) *Status {
	tb.Helper()
	for deadline := time.Now().Add(fakenet.AwaitLimit); ; {
		s := AwaitMatch(tb, st.Conn.server, func(s *Status) bool { return s.Stream == st })
		switch {
		case s == nil || s.Flush > want || s.Flush < want && time.Now().After(deadline):
			tb.Fatalf("await flush %s: got %v", want, s)
			return s
		case s.Flush == want:
			return s
		}
	}
}

func (st *Stream) send(messages ...pgproto3.BackendMessage) {
	b := encode(messages...)
	st.Conn.mu.Lock()
	defer st.Conn.mu.Unlock()
	if st.running && !st.done {
		st.Conn.writeLocked(b)
	}
}

// end writes the last messages of a stream, once.
func (st *Stream) end(messages ...pgproto3.BackendMessage) {
	b := encode(messages...)
	st.Conn.mu.Lock()
	defer st.Conn.mu.Unlock()
	if st.running {
		st.Conn.writeLocked(b)
		st.running = false
	}
}

// current is the running stream, nil if there is none. Only the reading
// goroutine calls it.
func (c *Conn) current() *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream != nil && !c.stream.running {
		c.stream = nil
	}
	return c.stream
}

// copyData takes what the client sends within the stream, and drops it outside,
// as PostgreSQL does. An error ends the connection.
func (c *Conn) copyData(data []byte) error {
	st := c.current()
	if st == nil {
		return nil
	}
	if len(data) == 34 && data[0] == pglogrepl.StandbyStatusUpdateByteID {
		lsn := func(at int) pglogrepl.LSN { return pglogrepl.LSN(binary.BigEndian.Uint64(data[at:])) }
		s := Status{
			Stream: st, Write: lsn(1), Flush: lsn(9), Apply: lsn(17), Reply: data[33] != 0,
			Time: time.UnixMicro(int64(binary.BigEndian.Uint64(data[25:])) + epoch),
		}
		c.mu.Lock()
		st.statuses = append(st.statuses, s)
		c.mu.Unlock()
		c.server.events.Put(&s)
		return nil
	}
	if len(data) > 0 && data[0] == 'h' { // hot standby feedback
		return nil
	}
	st.end() // a real server writes why into its log only
	c.hangUp()
	return errFatal
}

// copyDone is the end of the stream by the client, or its answer to ours.
func (c *Conn) copyDone() {
	st := c.current()
	if st == nil {
		return
	}
	c.server.events.Put(&CopyDone{Stream: st})
	c.mu.Lock()
	var last []pgproto3.BackendMessage
	if !st.done {
		last = append(last, &pgproto3.CopyDone{})
		if n := len(st.statuses); n > 0 { // a real server sends a keepalive behind it
			last = append(last, keepalive(st.statuses[n-1].Write, false))
		}
	}
	c.mu.Unlock()
	for _, tag := range []string{"COPY 0", "START_REPLICATION"} {
		last = append(last, &pgproto3.CommandComplete{CommandTag: []byte(tag)})
	}
	st.end(append(last, ready())...)
}
