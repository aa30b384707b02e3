package fakewal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/fakewal"
)

func TestFramesAreReadByTheRealParser(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	at := time.Date(2024, 2, 29, 12, 0, 0, 123000, time.UTC)
	st.Send(
		fakewal.Begin(7, 0x200, at),
		fakewal.Message(0x180, true, "amqp", []byte{0, 1, 0}),
		fakewal.Relation(16385, "public", "t", "a", "b"),
		fakewal.Insert(0x190, 16385, []byte("x"), nil),
		fakewal.Truncate(0x1a0, 16385, 16386),
		fakewal.Commit(0x200, 0x230, at),
		fakewal.Message(0x268, false, "other", nil),
	)
	if m, ok := decoded(t, c).(*pglogrepl.BeginMessage); !ok || m.Xid != 7 || m.FinalLSN != 0x200 || !m.CommitTime.Equal(at) {
		t.Errorf("begin %+v", m)
	}
	if m, ok := decoded(t, c).(*pglogrepl.LogicalDecodingMessage); !ok || m.LSN != 0x180 || !m.Transactional || m.Prefix != "amqp" ||
		!bytes.Equal(m.Content, []byte{0, 1, 0}) {
		t.Errorf("message %+v", m)
	}
	x := xlog(t, c)
	m, err := pglogrepl.Parse(x.WALData)
	if r, ok := m.(*pglogrepl.RelationMessage); err != nil || !ok || r.RelationID != 16385 || r.Namespace != "public" || r.RelationName != "t" ||
		len(r.Columns) != 2 || r.Columns[1].Name != "b" || r.Columns[1].DataType != 25 || r.Columns[1].TypeModifier != -1 || x.WALStart != 0 {
		t.Errorf("relation %+v at %s: %v", m, x.WALStart, err)
	}
	if m, ok := decoded(t, c).(*pglogrepl.InsertMessage); !ok || m.RelationID != 16385 || len(m.Tuple.Columns) != 2 ||
		string(m.Tuple.Columns[0].Data) != "x" || m.Tuple.Columns[1].DataType != 'n' {
		t.Errorf("insert %+v", m)
	}
	if m, ok := decoded(t, c).(*pglogrepl.TruncateMessage); !ok || len(m.RelationIDs) != 2 || m.RelationIDs[1] != 16386 || m.Option != 0 {
		t.Errorf("truncate %+v", m)
	}
	if m, ok := decoded(t, c).(*pglogrepl.CommitMessage); !ok || m.CommitLSN != 0x200 || m.TransactionEndLSN != 0x230 || !m.CommitTime.Equal(at) {
		t.Errorf("commit %+v", m)
	}
	x = xlog(t, c)
	m, err = pglogrepl.Parse(x.WALData)
	if l, ok := m.(*pglogrepl.LogicalDecodingMessage); err != nil || !ok || l.Transactional || l.Prefix != "other" || len(l.Content) != 0 ||
		x.WALStart != 0x268 || x.ServerWALEnd != 0x268 {
		t.Errorf("message %+v at %s: %v", m, x.WALStart, err)
	}
}

func TestKeepaliveAndStatus(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.Keepalive(0x300, true)
	k, err := pglogrepl.ParsePrimaryKeepaliveMessage(receive(t, c).(*pgproto3.CopyData).Data[1:])
	if err != nil || k.ServerWALEnd != 0x300 || !k.ReplyRequested || time.Since(k.ServerTime) > time.Minute {
		t.Errorf("keepalive %+v, %v", k, err)
	}
	report(t, c, 0x300, 0x100)
	report(t, c, 0x300, 0x200)
	got := st.AwaitFlush(t, 0x200)
	if got.Write != 0x300 || got.Apply != 0x200 || !got.Reply || time.Since(got.Time) > time.Minute {
		t.Errorf("status %v", got)
	}
	if all := st.Statuses(); len(all) != 2 || all[0].Flush != 0x100 {
		t.Errorf("statuses %v", all)
	}
	// The library's trap: a flush position of zero becomes the write position.
	report(t, c, 0x300, 0)
	st.AwaitFlush(t, 0x300)
}

// An ERROR leaves the connection open: a client that looks only at CopyData
// would wait for ever, its status messages going nowhere.
func TestErrorInMidStreamKeepsTheConnection(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.Notice(&fakewal.Error{Code: "55000", Message: "skipped loading publication"})
	st.Fail(&fakewal.Error{Code: "42704", Message: `publication "p" does not exist`})
	st.Keepalive(0x300, false) // too late: not sent
	if n, ok := receive(t, c).(*pgproto3.NoticeResponse); !ok || n.Severity != "WARNING" || n.Code != "55000" {
		t.Errorf("notice %+v", n)
	}
	if e, ok := receive(t, c).(*pgproto3.ErrorResponse); !ok || e.Severity != "ERROR" || e.Code != "42704" {
		t.Errorf("error %+v", e)
	}
	if m, ok := receive(t, c).(*pgproto3.ReadyForQuery); !ok {
		t.Errorf("got %T", m)
	}
	report(t, c, 0x300, 0x300)
	if _, err := c.Exec(within(t), "SHOW wal_sender_timeout").ReadAll(); err != nil {
		t.Errorf("query after the error: %v", err)
	}
	if all := st.Statuses(); len(all) != 0 {
		t.Errorf("status heeded after the error: %v", all)
	}
}

func TestFatalAndShutdownCloseTheConnection(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(*fakewal.Stream)
		want func(pgproto3.BackendMessage) bool
	}{
		"fatal": {
			func(st *fakewal.Stream) { st.Fail(fakewal.Fatal("57P01", "terminating")) },
			func(pgproto3.BackendMessage) bool { return false }, // pgconn makes it the error
		},
		"shutdown": {
			func(st *fakewal.Stream) { st.Shutdown() },
			func(m pgproto3.BackendMessage) bool { _, ok := m.(*pgproto3.CommandComplete); return ok },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fakewal.Start(t, fakewal.Config{})
			c, st := stream(t, s)
			report(t, c, 1, 1) // unread by the server, perhaps, and still no reset
			end.do(st)
			m, err := c.ReceiveMessage(within(t))
			if err == nil && end.want(m) {
				_, err = c.ReceiveMessage(within(t))
			}
			if code(err) != "57P01" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v, %v", m, err)
			}
			hangUp(t, c)
			fakewal.Await[*fakewal.Closed](t, s)
		})
	}
}

func TestCopyDoneByTheClient(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	report(t, c, 0x300, 0x300)
	if _, err := pglogrepl.SendStandbyCopyDone(within(t), c); err != nil {
		t.Fatal(err)
	}
	if e := fakewal.Await[*fakewal.CopyDone](t, s); e.Stream != st || len(st.Statuses()) != 1 {
		t.Errorf("copy done of %v, statuses %v", e.Stream, st.Statuses())
	}
	if _, err := pglogrepl.IdentifySystem(within(t), c); err != nil {
		t.Errorf("after the stream: %v", err)
	}
}

func TestCopyDoneByTheServer(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.CopyDone()
	if m, ok := receive(t, c).(*pgproto3.CopyDone); !ok {
		t.Errorf("got %T", m)
	}
	if _, err := pglogrepl.SendStandbyCopyDone(within(t), c); err != nil {
		t.Fatal(err)
	}
	fakewal.Await[*fakewal.CopyDone](t, s)
}

func TestHalfAFrameThenSilenceThenDrop(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.HalfFrame(fakewal.Message(0x100, false, "amqp", make([]byte, 100)))
	st.Keepalive(0x300, true) // silent
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if m, err := c.ReceiveMessage(ctx); !pgconn.Timeout(err) {
		t.Fatalf("got %v, %v", m, err)
	}
	report(t, c, 0x100, 0x100) // the client can still write
	st.AwaitFlush(t, 0x100)
	st.Conn.Drop()
	if m, err := c.ReceiveMessage(within(t)); err == nil {
		t.Errorf("half a frame became %v", m)
	}
}

func TestFreezeHoldsStatusesUntilThaw(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.Conn.Freeze()
	report(t, c, 0x100, 0x100)
	st.Keepalive(0x100, false) // writing goes on, and gives the status time to arrive
	receive(t, c)
	if all := st.Statuses(); len(all) != 0 {
		t.Errorf("statuses while frozen: %v", all)
	}
	st.Conn.Thaw()
	st.AwaitFlush(t, 0x100)
}

func TestUnexpectedCopyDataAndQueryEndTheConnection(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	for name, c := range map[string]struct {
		m    pgproto3.FrontendMessage
		code string
	}{
		"data":  {&pgproto3.CopyData{Data: []byte("?")}, ""}, // without a word
		"query": {&pgproto3.Query{String: "select 1"}, "08P01"},
	} {
		conn, _ := stream(t, s)
		conn.Frontend().Send(c.m)
		if err := conn.Frontend().Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.ReceiveMessage(within(t)); err == nil || code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failure is a test that only remembers how it failed.
type failure struct{ text string }

func (*failure) Helper()        {}
func (*failure) Cleanup(func()) {}
func (f *failure) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
}

func TestAwaitFlushFailsWhenTheClientReportsMore(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	report(t, c, 0x300, 0x100)
	report(t, c, 0x300, 0x201)
	var f failure
	st.AwaitFlush(&f, 0x200)
	if !strings.Contains(f.text, "flush 0/201") {
		t.Errorf("failed with %q", f.text)
	}
}
