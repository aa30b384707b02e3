package fakewal_test

import (
	"errors"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/fakewal"
)

func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestIdentifySystemFollowsAFailover(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c := connect(t, s)
	if got := c.ParameterStatus("server_version"); got != "15.20" {
		t.Errorf("server_version %q", got)
	}
	one, err := pglogrepl.IdentifySystem(within(t), c)
	if err != nil || one.Timeline != 1 || one.DBName != "fake" || one.SystemID == "" || one.XLogPos == 0 {
		t.Errorf("got %+v, %v", one, err)
	}
	s.SetSystem(fakewal.System{ID: one.SystemID, Timeline: 2, Position: 0x42, Database: "other"})
	two, err := pglogrepl.IdentifySystem(within(t), c)
	if want := (pglogrepl.IdentifySystemResult{SystemID: one.SystemID, Timeline: 2, XLogPos: 0x42, DBName: "other"}); err != nil || two != want {
		t.Errorf("got %+v, %v, want %+v", two, err, want)
	}
	if conn := fakewal.Await[*fakewal.Conn](t, s); conn.Params["replication"] != "database" || conn.Params["user"] != "fake" {
		t.Errorf("params %v", conn.Params)
	}
	if q := fakewal.Await[*fakewal.Query](t, s); q.SQL != "IDENTIFY_SYSTEM" {
		t.Errorf("query %q", q.SQL)
	}
}

func TestQueriesAreAnsweredByTheTestFirst(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{
		Settings: map[string]string{"wal_level": "logical"},
		Query: func(q *fakewal.Query) *fakewal.Answer {
			switch q.SQL {
			case "TIMELINE_HISTORY 2":
				return &fakewal.Answer{Columns: []string{"filename", "content"}, Rows: [][]any{{"00000002.history", "1\t0/42\tno"}}}
			case "select":
				return &fakewal.Answer{Columns: []string{"a", "b"}, Rows: [][]any{{nil, 1}, {"", pglogrepl.LSN(2)}}}
			case "fail":
				return &fakewal.Answer{Error: &fakewal.Error{Code: "55006", Message: "busy", Detail: "very"}}
			case "die":
				return &fakewal.Answer{Error: fakewal.Fatal("57P01", "terminated")}
			}
			return nil
		},
	})
	c := connect(t, s)
	h, err := pglogrepl.TimelineHistory(within(t), c, 2)
	if err != nil || h.FileName != "00000002.history" || string(h.Content) != "1\t0/42\tno" {
		t.Errorf("got %+v, %v", h, err)
	}
	if _, err := pglogrepl.TimelineHistory(within(t), c, 1); code(err) != "58P01" {
		t.Errorf("history of timeline 1: %v", err)
	}
	r, err := c.Exec(within(t), "select").ReadAll()
	if err != nil || len(r) != 1 || len(r[0].Rows) != 2 {
		t.Fatalf("got %+v, %v", r, err)
	}
	rows := r[0].Rows
	if rows[0][0] != nil || string(rows[0][1]) != "1" || rows[1][0] == nil || string(rows[1][1]) != "0/2" {
		t.Errorf("rows %q", rows)
	}
	for sql, want := range map[string]string{"SHOW wal_level": "logical", "SHOW wal_sender_timeout": "1min"} {
		if r, err := c.Exec(within(t), sql).ReadAll(); err != nil || string(r[0].Rows[0][0]) != want {
			t.Errorf("%s: %v, %v", sql, r, err)
		}
	}
	for sql, want := range map[string]string{"fail": "55006", "SHOW no": "42704", "who knows": "42601"} {
		if _, err := c.Exec(within(t), sql).ReadAll(); code(err) != want {
			t.Errorf("%s: %v, want %s", sql, err, want)
		}
	}
	if got := c.ExecParams(within(t), "select", nil, nil, nil, nil).Read().Err; code(got) != "08P01" {
		t.Errorf("extended protocol: %v", got)
	}
	if _, err := c.Exec(within(t), "select").ReadAll(); err != nil {
		t.Errorf("after the extended protocol: %v", err)
	}
	if _, err := c.Exec(within(t), "die").ReadAll(); code(err) != "57P01" {
		t.Errorf("die: %v", err)
	}
	fakewal.Await[*fakewal.Closed](t, s)
}

func TestSlotIsBusyOnceThenFree(t *testing.T) {
	busy := true
	s := fakewal.Start(t, fakewal.Config{Query: func(*fakewal.Query) *fakewal.Answer {
		if !busy {
			return nil
		}
		busy = false
		return &fakewal.Answer{Error: &fakewal.Error{Code: "55006", Message: `replication slot "pgamqp" is active for PID 7`}}
	}})
	c := connect(t, s)
	if err := start(t, c); code(err) != "55006" {
		t.Errorf("start on a busy slot: %v", err)
	}
	if m := receive(t, c); m == nil { // ReadyForQuery is left to the caller
		t.Error("nothing")
	}
	if err := start(t, c); err != nil {
		t.Error(err)
	}
	st := fakewal.Await[*fakewal.Stream](t, s)
	if st.Slot != "pgamqp" || st.From != 0 || st.Options["publication_names"] != `"it's"` || st.Options["messages"] != "true" {
		t.Errorf("stream %+v", st)
	}
}

func TestConnectionsAreRefusedUntilOneIsNot(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{Startup: func(c *fakewal.Conn) *fakewal.Error {
		if c.ID == 1 {
			return fakewal.Fatal("57P03", "the database system is shutting down")
		}
		return nil
	}})
	if _, err := pgconn.Connect(within(t), s.ReplicationURL()); code(err) != "57P03" {
		t.Errorf("got %v", err)
	}
	if e := fakewal.Await[*fakewal.Closed](t, s); e.Conn.ID != 1 || e.Clean {
		t.Errorf("end: %v", e)
	}
	s.Admit(fakewal.Refuse)
	if _, err := pgconn.Connect(within(t), s.ReplicationURL()); err == nil {
		t.Error("connected to a server that is not there")
	}
	fakewal.Await[*fakewal.NotServed](t, s)
	s.Admit(fakewal.Ignore)
	dialed := make(chan error, 1)
	ctx := within(t)
	go func() {
		_, err := pgconn.Connect(ctx, s.ReplicationURL())
		dialed <- err
	}()
	fakewal.Await[*fakewal.NotServed](t, s).Conn.Reset()
	if err := <-dialed; err == nil {
		t.Error("connected to a server that does not answer")
	}
	s.Admit(fakewal.Serve)
	hangUp(t, connect(t, s))
	fakewal.AwaitMatch(t, s, func(e *fakewal.Closed) bool { return e.Clean })
}

// A client that counts on ids, to treat its second connection unlike its first,
// must not be misled by the cancel request pgconn sends when a connection breaks.
func TestCancelRequestsAreNotCounted(t *testing.T) {
	s := fakewal.Start(t, fakewal.Config{})
	c, st := stream(t, s)
	st.Conn.Drop()
	if m, err := c.ReceiveMessage(within(t)); err == nil {
		t.Errorf("got %v from a lost connection", m)
	}
	<-c.CleanupDone() // behind the cancel request
	fakewal.Await[*fakewal.Conn](t, s)
	connect(t, s)
	if next := fakewal.Await[*fakewal.Conn](t, s); next.ID != 2 {
		t.Errorf("second connection is %v", next)
	}
}
