package fakewal_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// server is what the script asks of a server beside its answers to the client.
type server interface {
	connect() *pgconn.PgConn
	// slot makes a slot that begins now.
	slot(name string)
	// streaming says that the client has started a stream.
	streaming()
	// lone and transaction write messages with prefix p; row changes a row. What they
	// make is sent by the current stream.
	lone(text string)
	transaction(texts ...string)
	row()
	// answer is the keepalive that a report asks for.
	answer()
}

// observer is a client that writes down what a server sends, but for what differs from
// one time to the next: positions, times, transaction ids, and keepalives that it did
// not ask for.
type observer struct {
	t    *testing.T
	c    *pgconn.PgConn
	seen []string
}

func (o *observer) note(format string, args ...any) {
	o.seen = append(o.seen, fmt.Sprintf(format, args...))
}

// next receives one message and tells what it is. keepalive is its WAL end, if it is one.
func (o *observer) next() (what string, keepalive pglogrepl.LSN) {
	o.t.Helper()
	m, err := o.c.ReceiveMessage(within(o.t))
	var fatal *pgconn.PgError
	switch {
	case errors.As(err, &fatal):
		return fmt.Sprintf("%s %s, connection closed %t", fatal.Severity, fatal.Code, o.c.IsClosed()), 0
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "end without a word", 0
	case err != nil:
		o.t.Fatalf("%v, behind %q", err, o.seen)
	}
	switch m := m.(type) {
	case *pgproto3.RowDescription:
		var names []string
		for _, f := range m.Fields {
			names = append(names, string(f.Name))
		}
		return "columns " + strings.Join(names, " "), 0
	case *pgproto3.DataRow:
		return fmt.Sprintf("row of %d", len(m.Values)), 0
	case *pgproto3.CommandComplete:
		return "complete " + string(m.CommandTag), 0
	case *pgproto3.ErrorResponse:
		return m.Severity + " " + m.Code, 0
	case *pgproto3.ReadyForQuery:
		return "ready " + string(m.TxStatus), 0
	case *pgproto3.CopyData:
		if m.Data[0] == pglogrepl.PrimaryKeepaliveMessageByteID {
			k, err := pglogrepl.ParsePrimaryKeepaliveMessage(m.Data[1:])
			if err != nil {
				o.t.Fatal(err)
			}
			return fmt.Sprintf("keepalive, reply %t", k.ReplyRequested), k.ServerWALEnd
		}
		return describe(o.t, m.Data), 0
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."), 0
}

// describe tells what is in an XLogData message.
func describe(t *testing.T, data []byte) string {
	t.Helper()
	x, err := pglogrepl.ParseXLogData(data[1:])
	if err != nil {
		t.Fatal(err)
	}
	m, err := pglogrepl.Parse(x.WALData)
	if err != nil {
		t.Fatal(err)
	}
	equal := x.ServerWALEnd == x.WALStart
	switch m := m.(type) {
	case *pglogrepl.LogicalDecodingMessage:
		return fmt.Sprintf("message, start is end %t, transactional %t, prefix %q, content %q", equal, m.Transactional, m.Prefix, m.Content)
	case *pglogrepl.BeginMessage:
		return fmt.Sprintf("begin of %d bytes, start is end %t", len(x.WALData), equal)
	case *pglogrepl.CommitMessage:
		return fmt.Sprintf("commit of %d bytes, flags %d, start is end %t, ends behind its record %t, start is transaction's end %t", len(x.WALData),
			m.Flags, equal, m.TransactionEndLSN > m.CommitLSN, x.WALStart == m.TransactionEndLSN)
	}
	return fmt.Sprintf("%T", m)
}

// until notes messages up to one of a kind. Keepalives are left out, unless one is
// waited for.
func (o *observer) until(prefix string) {
	o.t.Helper()
	for {
		what, keepalive := o.next()
		done := strings.HasPrefix(what, prefix)
		if keepalive == 0 || done {
			o.note("%s", what)
		}
		if done {
			return
		}
	}
}

func (o *observer) send(messages ...pgproto3.FrontendMessage) {
	o.t.Helper()
	for _, m := range messages {
		o.c.Frontend().Send(m)
	}
	if err := o.c.Frontend().Flush(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *observer) query(sql string) {
	o.t.Helper()
	o.note("- %s", sql)
	o.send(&pgproto3.Query{String: sql})
	o.until("ready")
}

// stream starts one.
func (o *observer) stream(s server, slot, publication string) {
	o.t.Helper()
	o.note("- stream from %s", slot)
	o.send(&pgproto3.Query{String: fmt.Sprintf(
		`START_REPLICATION SLOT %s LOGICAL 0/0 ("proto_version" '1', "publication_names" '%s', "messages" 'true')`, slot, publication)})
	o.until("CopyBothResponse")
	s.streaming()
}

// ask reports a position below all and waits for the keepalive it asks for, one that
// asks for nothing.
func (o *observer) ask(s server) {
	o.t.Helper()
	o.note("- ask")
	report(o.t, o.c, 1, 1)
	s.answer()
	o.until("keepalive, reply false")
}

func (o *observer) script(s server) []string {
	o.t.Helper()
	o.c = s.connect()
	o.query("IDENTIFY_SYSTEM")
	o.query("SHOW wal_sender_timeout")
	o.query("TIMELINE_HISTORY 77")
	o.query("SHOW no_such_thing")
	o.query("START_REPLICATION SLOT missing LOGICAL 0/0 (proto_version '1', publication_names 'p')")
	o.note("- the extended protocol")
	o.send(&pgproto3.Parse{Query: "select 1"}, &pgproto3.Bind{}, &pgproto3.Sync{})
	o.until("ready")

	s.slot("good")
	o.stream(s, "good", "p")
	o.ask(s)
	s.lone("a")
	s.transaction("b", "")
	s.lone("c")
	o.until(`message, start is end true, transactional false, prefix "p", content "c"`)
	o.ask(s)
	o.note("- copy done")
	o.send(&pgproto3.CopyDone{})
	o.until("ready")
	o.query("IDENTIFY_SYSTEM")

	// A second stream on one connection is not compared: a server of version 15 that has
	// got CopyDone once ends every later one at once.
	o.c = s.connect()
	s.slot("doomed")
	o.stream(s, "doomed", "missing")
	s.lone("before the row")
	o.until("message")
	s.row()
	o.until("ready")
	report(o.t, o.c, 1, 1) // dropped
	o.query("SHOW wal_sender_timeout")

	o.c = s.connect()
	s.slot("asked")
	o.stream(s, "asked", "p")
	o.note("- a query in the stream")
	o.send(&pgproto3.Query{String: "IDENTIFY_SYSTEM"})
	o.until("FATAL")

	o.c = s.connect()
	s.slot("told")
	o.stream(s, "told", "p")
	o.note("- an unknown message in the stream")
	o.send(&pgproto3.CopyData{Data: []byte("?")})
	o.until("end")
	return o.seen
}

// fake is a scripted server.
type fake struct {
	t   *testing.T
	s   *fakewal.Server
	st  *fakewal.Stream
	log *fakewal.Log
}

func (f *fake) slot(string) {}

func (f *fake) connect() *pgconn.PgConn { return connect(f.t, f.s) }

func (f *fake) streaming() { f.st = fakewal.Await[*fakewal.Stream](f.t, f.s) }

func (f *fake) lone(text string) { f.st.Send(f.log.Emit("p", []byte(text)).Frames...) }

func (f *fake) transaction(texts ...string) {
	tx := f.log.Begin()
	for _, text := range texts {
		tx.Emit("p", []byte(text))
	}
	f.st.Send(tx.Commit().Frames...)
}

func (f *fake) row() {
	f.st.Fail(&fakewal.Error{Code: "42704", Message: `publication "missing" does not exist`})
}

func (f *fake) answer() { f.st.Keepalive(f.log.End(), false) }

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, log: fakewal.NewLog(0x1500000)}
	f.s = fakewal.Start(t, fakewal.Config{Query: func(q *fakewal.Query) *fakewal.Answer {
		if strings.HasPrefix(q.SQL, "START_REPLICATION SLOT missing") {
			return &fakewal.Answer{Error: &fakewal.Error{Code: "42704", Message: `replication slot "missing" does not exist`}}
		}
		return nil
	}})
	return f
}

// real is a PostgreSQL server.
type real struct {
	t  *testing.T
	p  *testserver.Postgres
	db *pgx.Conn
}

func (r *real) connect() *pgconn.PgConn {
	r.t.Helper()
	config, err := pgconn.ParseConfig(r.p.URL("postgres"))
	if err != nil {
		r.t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	c, err := pgconn.ConnectConfig(within(r.t), config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { hangUp(r.t, c) })
	return c
}

func (r *real) exec(sql string, args ...any) {
	r.t.Helper()
	if _, err := r.db.Exec(within(r.t), sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *real) slot(name string) {
	r.t.Helper()
	r.exec(`select pg_create_logical_replication_slot($1, 'pgoutput')`, name)
}

func (r *real) lone(text string) {
	r.t.Helper()
	r.exec(`select pg_logical_emit_message(false, 'p', $1::text)`, text)
	r.exec(`create temporary table if not exists flush ()`) // a commit, so that it is flushed at once
	r.exec(`drop table flush`)
}

func (r *real) transaction(texts ...string) {
	r.t.Helper()
	r.exec(`select pg_logical_emit_message(true, 'p', t) from unnest($1::text[]) t`, texts)
}

func (r *real) row() {
	r.t.Helper()
	r.exec(`insert into t values (1)`)
}

func (r *real) answer() {} // comes by itself

func (r *real) streaming() {}

func newReal(t *testing.T) *real {
	t.Helper()
	p, err := testserver.StartPostgres(testserver.PostgresOptions{Version: 15})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	db, err := pgx.Connect(within(t), p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(within(t)) })
	r := &real{t: t, p: p, db: db}
	r.exec(`create table t (n int)`)
	r.exec(`create publication p`)
	return r
}

// TestClientSeesTheSameOfARealServer compares what a client sees: messages, their kinds
// and order, codes, and what is closed.
func TestClientSeesTheSameOfARealServer(t *testing.T) {
	t.Parallel()
	want := (&observer{t: t}).script(newReal(t))
	got := (&observer{t: t}).script(newFake(t))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("PostgreSQL -, fake +:\n%s", diff)
	}
	if len(want) < 50 {
		t.Errorf("only %d lines: %q", len(want), want)
	}
}
