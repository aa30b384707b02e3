package catalog_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// streaming reads a slot until the end of the test, and returns the server's process.
func streaming(t *testing.T, p *testserver.Postgres, database, slot string) uint32 {
	t.Helper()
	config, err := pgconn.ParseConfig(p.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	err = pglogrepl.StartReplication(t.Context(), conn, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names 'pgamqp'", "messages 'true'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn.PID()
}

// asks opens a connection for each question, as the daemon does. before is called when it
// is open.
func asks(p *testserver.Postgres, database string, before func(*pgx.Conn)) func(context.Context, func(context.Context, *pgx.Conn) error) error {
	return func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
		conn, err := catalog.Connect(ctx, p.URL(database))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		before(conn)
		return f(ctx, conn)
	}
}

func TestSlotsOfBrokersAreMadeAndDroppedByWhoReadsTheMainSlot(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, database := installed(t, p)
		slot := value[string](t, conn, `select slot_name from amqp.installation`)
		atEnd(t, p, database, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like '%\_broker\_%' and database = current_database()`)
		lanes := catalog.Lanes{Ask: asks(p, database, func(*pgx.Conn) {}), Slot: slot, PID: streaming(t, p, database, slot)}
		list := func(want ...int32) {
			t.Helper()
			if got, err := lanes.List(t.Context()); err != nil || !slices.Equal(got, want) {
				t.Errorf("brokers with a slot are %v, want %v; error %v", got, want, err)
			}
		}
		list()
		for range 2 { // the second time it is there already
			if err := lanes.Copy(t.Context(), 7); err != nil {
				t.Fatal(err)
			}
		}
		list(7)
		main, err := catalog.ReadSlot(t.Context(), conn, slot)
		if err != nil {
			t.Fatal(err)
		}
		lane, err := catalog.ReadSlot(t.Context(), conn, catalog.LaneSlot(slot, 7))
		if err != nil {
			t.Fatal(err)
		}
		if lane.ConfirmedFlush != main.ConfirmedFlush || lane.Plugin != "pgoutput" || lane.Temporary {
			t.Errorf("the copy %+v is not like the main slot %+v", lane, main)
		}
		config, err := pgconn.ParseConfig(p.URL(database))
		if err != nil {
			t.Fatal(err)
		}
		if err := catalog.KeepLaneOverFailover(t.Context(), config, main, lane); err != nil {
			t.Error(err)
		}
		if lane, err = catalog.ReadSlot(t.Context(), conn, lane.Name); err != nil || lane.Failover != (p.Version() >= 17) {
			t.Errorf("version %d: failover of the copy is %v; error %v", p.Version(), lane.Failover, err)
		}

		replaced := lanes
		replaced.PID++
		for _, err := range []error{replaced.Copy(t.Context(), 8), replaced.Drop(t.Context(), 7)} {
			if err == nil || !strings.Contains(err.Error(), "does not read the main slot any more") {
				t.Errorf("a daemon that was replaced gets %v", err)
			}
		}
		list(7)
		for range 2 { // the second time it is gone already
			if err := lanes.Drop(t.Context(), 7); err != nil {
				t.Error(err)
			}
		}
		list()
	})
}

func TestLateCommandAboutASlotIsNotCarriedOut(t *testing.T) {
	p := server(t, 15)
	conn, database := installed(t, p)
	slot := value[string](t, conn, `select slot_name from amqp.installation`)
	late := func(conn *pgx.Conn) { exec(t, conn, `select pg_sleep(4.2)`) } // longer than the server takes commands
	lanes := catalog.Lanes{Ask: asks(p, database, late), Slot: slot, PID: streaming(t, p, database, slot)}
	if err := lanes.Copy(t.Context(), 7); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("a late command gets %v", err)
	}
	if n := value[int](t, conn, `select count(*)::int from pg_replication_slots where starts_with(slot_name::text, $1 || '_broker_')`, slot); n != 0 {
		t.Errorf("%d slots were made", n)
	}
}
