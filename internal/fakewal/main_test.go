package fakewal_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/pgamqp/pgamqp/internal/fakewal"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop"))
}

// limit bounds every wait of these tests; only a failing test reaches it.
const limit = 15 * time.Second

// within is a context for one wait. It is not the test's, which has ended when
// the cleanups use it.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	t.Cleanup(cancel)
	return ctx
}

// connect opens a replication connection with the real client.
func connect(t *testing.T, s *fakewal.Server) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(within(t), s.ReplicationURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(t, c) })
	return c
}

// hangUp closes the client's connection and waits until nothing of it is left.
func hangUp(t *testing.T, c *pgconn.PgConn) {
	t.Helper()
	_ = c.Close(within(t))
	<-c.CleanupDone()
}

// stream connects and starts replication.
func stream(t *testing.T, s *fakewal.Server) (*pgconn.PgConn, *fakewal.Stream) {
	t.Helper()
	c := connect(t, s)
	if err := start(t, c); err != nil {
		t.Fatal(err)
	}
	return c, fakewal.Await[*fakewal.Stream](t, s)
}

func start(t *testing.T, c *pgconn.PgConn) error {
	t.Helper()
	return pglogrepl.StartReplication(within(t), c, "pgamqp", 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '\"it''s\"'", "messages 'true'"},
	})
}

// receive waits for one message of any kind.
func receive(t *testing.T, c *pgconn.PgConn) pgproto3.BackendMessage {
	t.Helper()
	m, err := c.ReceiveMessage(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// xlog waits for an XLogData message.
func xlog(t *testing.T, c *pgconn.PgConn) pglogrepl.XLogData {
	t.Helper()
	m := receive(t, c)
	d, ok := m.(*pgproto3.CopyData)
	if !ok || d.Data[0] != pglogrepl.XLogDataByteID {
		t.Fatalf("got %T %v, want XLogData", m, m)
	}
	x, err := pglogrepl.ParseXLogData(d.Data[1:])
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// decoded waits for an XLogData message and decodes its content.
func decoded(t *testing.T, c *pgconn.PgConn) pglogrepl.Message {
	t.Helper()
	m, err := pglogrepl.Parse(xlog(t, c).WALData)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func report(t *testing.T, c *pgconn.PgConn, write, flush pglogrepl.LSN) {
	t.Helper()
	err := pglogrepl.SendStandbyStatusUpdate(within(t), c, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: write, WALFlushPosition: flush, WALApplyPosition: flush, ReplyRequested: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}
