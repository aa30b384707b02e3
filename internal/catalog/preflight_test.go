package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

func preflight(t testing.TB, conn *pgx.Conn) error {
	t.Helper()
	return catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{})
}

func TestPreflightNamesAllProblemsAtOnce(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		exec(t, connect(t, p, "postgres"), `create role `+name+`_weak login`)
		atEnd(t, p, "postgres", `drop role `+name+`_weak`)
		conn := connectAs(t, p, name, name+"_weak")
		err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{Slot: name, Publication: name})
		wantProblem(t, err,
			`role "`+name+`_weak" may not use replication slots`, `alter role "`+name+`_weak" replication;`,
			`schema amqp is not installed in database "`+name+`"`, `run "pgamqp install"`,
			`publication "`+name+`" does not exist`,
			`slot "`+name+`" does not exist`)
	})
}

func TestPreflightWantsTheDaemonsPrivileges(t *testing.T) {
	p := server(t, 15)
	super, name := installed(t, p)
	role := name + "_daemon"
	exec(t, super, `create role `+role+` login replication`)
	atEnd(t, p, "postgres", `drop role `+role)
	conn := connectAs(t, p, name, role)
	err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{Slot: name, Publication: name})
	wantProblem(t, err, `role "`+role+`" may not read amqp.broker`, `grant pgamqp_daemon to "`+role+`";`)
	exec(t, super, `grant pgamqp_daemon to `+role)
	if err := preflight(t, conn); err != nil {
		t.Error(err)
	}
	// All that the daemon does, as this role.
	if _, err := catalog.Heartbeat(t.Context(), conn, "n"); err != nil {
		t.Error(err)
	}
	if _, err := catalog.Brokers(t.Context(), conn); err != nil {
		t.Error(err)
	}
	if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{Origin: "o", LSN: 1, Kind: "publish", Reason: "invalid"}); err != nil {
		t.Error(err)
	}
	if n, err := catalog.CountDeadLetters(t.Context(), conn); err != nil || n != 1 {
		t.Errorf("%d dead letters, %v", n, err)
	}
	if _, err := catalog.ReadSlot(t.Context(), conn, name); err != nil {
		t.Error(err)
	}
	if warnings, err := catalog.Warnings(t.Context(), conn); err != nil || len(warnings) != 0 {
		t.Errorf("warnings %q, %v", warnings, err)
	}
}

func TestPreflightKnowsEveryUnfitSlot(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	exec(t, conn, `select pg_create_physical_replication_slot($1)`, name+"_phys")
	atEnd(t, p, "postgres", `select pg_drop_replication_slot('`+name+`_phys')`)
	exec(t, conn, `select pg_create_logical_replication_slot($1, 'test_decoding', false, true)`, name+"_other")
	_, elsewhere := installed(t, p)
	for slot, parts := range map[string][]string{
		name + "_phys":  {"is a physical slot, not a logical one"},
		name + "_other": {"was created for plugin test_decoding, not pgoutput", "(two_phase)"},
		name + "_none":  {`slot "` + name + `_none" does not exist; pgamqp is installed with slot "` + name + `"`, "give --slot " + name},
		elsewhere:       {`belongs to database "` + elsewhere + `", this is "` + name + `"`, "give --slot " + name + ", with which"},
		"Not A Name":    {`"Not A Name" cannot be the name of a slot`},
	} {
		wantProblem(t, catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{Slot: slot}), parts...)
	}
	wantProblem(t, catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{Publication: "none"}),
		`publication "none" does not exist; pgamqp is installed with publication "`+name+`"`, "give --publication "+name)
}

func TestP52PreflightWantsLogicalWAL(t *testing.T) {
	p := ownServer(t, 0, map[string]string{"wal_level": "replica"})
	conn := connect(t, p, "postgres")
	wantProblem(t, preflight(t, conn), "wal_level is replica", "alter system set wal_level = 'logical';")
	_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{})
	wantProblem(t, err, "wal_level is replica", "alter system set wal_level = 'logical';")
}

func TestP53InstallWantsAFreeSlot(t *testing.T) {
	p := ownServer(t, 0, map[string]string{"max_replication_slots": "1"})
	conn := connect(t, p, "postgres")
	exec(t, conn, `select pg_create_physical_replication_slot('other')`)
	_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{})
	wantProblem(t, err, "all 1 replication slots of the server are in use", "max_replication_slots = 11")
}

func TestP23LostSlotIsAProblemAndWarningComesBefore(t *testing.T) {
	for _, version := range []int{15, 18} {
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) {
			p := ownServer(t, version, map[string]string{"max_slot_wal_keep_size": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
			conn := connect(t, p, "postgres")
			install(t, conn, "pgamqp")
			exec(t, conn, `select pg_copy_logical_replication_slot('pgamqp', 'pgamqp_broker_7')`)
			before, err := catalog.ReadSlot(t.Context(), conn, "pgamqp")
			if err != nil || before.SafeWALSize == nil || before.Lost() {
				t.Fatalf("%+v, %v", before, err)
			}
			for range 8 {
				exec(t, conn, `select pg_logical_emit_message(false, 'x', repeat('x', 1000000)) from generate_series(1, 10)`)
				exec(t, conn, `select pg_switch_wal()`)
			}
			exec(t, conn, `checkpoint`)
			after, err := catalog.ReadSlot(t.Context(), conn, "pgamqp")
			if err != nil || !after.Lost() {
				t.Fatalf("%+v, %v", after, err)
			}
			wantProblem(t, preflight(t, conn), `slot "pgamqp" is lost`, `slot "pgamqp_broker_7" is lost`,
				before.ConfirmedFlush.String(), "pg_drop_replication_slot('pgamqp')", "max_slot_wal_keep_size")
			_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{})
			wantProblem(t, err, `slot "pgamqp" is lost`)
		})
	}
}

func TestP24IdleTimeoutIsWarnedOf(t *testing.T) {
	p := ownServer(t, 18, map[string]string{"idle_replication_slot_timeout": "1h"})
	conn := connect(t, p, "postgres")
	report := install(t, conn, "pgamqp")
	if text := strings.Join(report.Warnings, "\n"); !strings.Contains(text, "idle_replication_slot_timeout is 3600s") {
		t.Errorf("warnings: %q", text)
	}
}

// eventually waits for something that the server announces to nobody.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatal("it never came")
		case <-tick.C:
		}
	}
}

// walsender opens a replication connection that streams from a slot.
func walsender(t testing.TB, p *testserver.Postgres, database, slot, application string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), p.URL(database)+"&replication=database&application_name="+application)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	err = pglogrepl.StartReplication(t.Context(), conn, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + slot + "'", "messages 'true'"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestP51SynchronousStandbyIsRecognised(t *testing.T) {
	for _, version := range testserver.Versions {
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) {
			p := ownServer(t, version, nil)
			conn, name := installed(t, p)
			stream := walsender(t, p, name, name, "pgamqp")
			is := func() (bool, error) { return catalog.IsSynchronousStandby(t.Context(), conn, stream.PID()) }
			if sync, err := is(); err != nil || sync {
				t.Errorf("%v, %v before the setting", sync, err)
			}
			if sync, err := catalog.IsSynchronousStandby(t.Context(), conn, conn.PgConn().PID()); err != nil || sync {
				t.Errorf("%v, %v for what is no walsender", sync, err)
			}
			exec(t, conn, `set synchronous_commit = local`) // not to wait for ourselves
			for _, names := range []string{"*", "any 1 (pgamqp)"} {
				exec(t, conn, `alter system set synchronous_standby_names = '`+names+`'`)
				exec(t, conn, `select pg_reload_conf()`)
				eventually(t, func() bool {
					// The walsender notices the new setting when it is spoken to.
					if err := pglogrepl.SendStandbyStatusUpdate(t.Context(), stream, pglogrepl.StandbyStatusUpdate{WALWritePosition: 1, ReplyRequested: true}); err != nil {
						t.Fatal(err)
					}
					sync, err := is()
					return err == nil && sync
				})
			}
			exec(t, conn, `alter system reset synchronous_standby_names`) // for the clean-up
			exec(t, conn, `select pg_reload_conf()`)
		})
	}
}

func TestP47StandbyIsWaitedForAndNotInstalledOn(t *testing.T) {
	for _, version := range []int{15, 17} {
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) {
			p := ownServer(t, version, nil)
			conn := connect(t, p, "postgres")
			install(t, conn, "pgamqp")
			folder := value[string](t, conn, `select current_setting('data_directory')`)
			exec(t, conn, `copy (select '') to '`+folder+`/standby.signal'`)
			if err := p.Restart(testserver.Fast); err != nil {
				t.Fatal(err)
			}
			conn = connect(t, p, "postgres")
			if !value[bool](t, conn, `select pg_is_in_recovery()`) {
				t.Fatal("it is no standby")
			}
			if err := preflight(t, conn); !errors.Is(err, catalog.ErrStandby) {
				t.Errorf("preflight says %v", err)
			}
			_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{})
			wantProblem(t, err, "the server is a standby")
			slot, err := catalog.ReadSlot(t.Context(), conn, "pgamqp")
			if err != nil || slot.CurrentWAL == 0 {
				t.Errorf("%+v, %v", slot, err)
			}
		})
	}
}

// What was there when pgamqp was installed is another matter than what never was.
func TestPreflightTellsWhatIsGoneFromWhatNeverWas(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		check := func(slot, publication string, want catalog.Kind, parts ...string) {
			t.Helper()
			err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{Slot: slot, Publication: publication})
			wantProblem(t, err, parts...)
			var problems *catalog.ProblemsError
			if errors.As(err, &problems) && problems.Gravest() != want {
				t.Errorf("%v is of kind %d, want %d", err, problems.Gravest(), want)
			}
		}
		check(name+"_none", "", catalog.Setup, "does not exist")
		check("", "none", catalog.Setup, "does not exist")
		exec(t, conn, `drop publication `+name)
		check("", "", catalog.PublicationMissing, `publication "`+name+`" does not exist`)
		exec(t, conn, `select pg_drop_replication_slot($1)`, name)
		check("", "", catalog.SlotGone, `slot "`+name+`" does not exist, and did when pgamqp was installed`, "on timeline 1")
	})
}
