package integration

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// fillSegments ends n segments of WAL, which is how a slot comes to its limit quickly.
func (w *world) fillSegments(n int) {
	w.t.Helper()
	for range n {
		w.exec(`select pg_switch_wal()`)
		w.exec(`create table if not exists some_wal ()`)
		w.exec(`drop table some_wal`)
	}
}

func (w *world) walStatus() string {
	w.t.Helper()
	return value[string](w, `select wal_status from pg_replication_slots where slot_name = $1`, w.slot)
}

func (w *world) awaitLost() {
	w.t.Helper()
	await(w.t, startLimit, "the slot is lost", func() bool {
		w.exec(`checkpoint`)
		return w.walStatus() == "lost"
	})
}

// beginAgain is the way out that the daemon names.
func (w *world) beginAgain() {
	w.t.Helper()
	w.exec(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1`, w.slot)
	w.install()
	w.queue(1, "q")
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'of the new slot')`)
	got := bodies(w.received(1, "q"))
	if len(got) == 0 || got[len(got)-1] != "of the new slot" {
		w.t.Errorf("%q came", got)
	}
}

func TestP23LostSlotIsToldWithTheRangeThatIsMissing(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "1MB"}})
	w := newWorld(t, worldOptions{postgres: p})
	confirmed := value[string](w, `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, w.slot)
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	for range 3 {
		w.exec(`select pg_switch_wal()`)
		w.exec(`create table if not exists some_wal ()`)
		w.exec(`drop table some_wal`)
	}
	w.exec(`checkpoint`)
	await(t, startLimit, "the slot is lost", func() bool {
		return value[string](w, `select wal_status from pg_replication_slots where slot_name = $1`, w.slot) == "lost"
	})
	w.refuseRun(exitSlotLost, nil, fmt.Sprintf(`slot "%s" is lost`, w.slot), confirmed,
		fmt.Sprintf(`select pg_drop_replication_slot\('%s'\); and "pgamqp install"`, w.slot))
	w.refuseInstall(exitPrecondition, nil, `is lost`, `pg_drop_replication_slot`)
	w.exec(`select pg_drop_replication_slot($1)`, w.slot)
	w.install()
	w.start()
}

// A server that needs room takes the slot from the daemon that reads it. The daemon warns
// before that, and does not come back afterwards.
func TestP23SlotThatIsLostWhileItIsReadStopsTheDaemon(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "32MB"}})
	w := newWorld(t, worldOptions{postgres: p})
	d := w.start()
	w.breakBroker(d, 1)
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	w.fillSegments(4)
	await(t, startLimit, "the slot is in danger", func() bool { return w.walStatus() == "unreserved" })
	d.waitLog("the next checkpoint may remove WAL that the slot needs")
	d.wantLog(`slot is in danger of being lost.* wal_status=unreserved .*the brokers have not confirmed`)
	confirmed := value[string](w, `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, w.slot)
	w.awaitLost()
	d.ends(exitSlotLost, fmt.Sprintf(`slot "%s" was invalidated; messages between %s and [0-9A-F]+/[0-9A-F]+ that are not confirmed are lost; note that range, then drop it with: select pg_drop_replication_slot\('%s'\)`,
		w.slot, confirmed, w.slot))
	w.mendBroker(1)
	w.beginAgain()
}

// Version 18 can take a slot away because nobody reads it.
func TestP24SlotThatWasIdleForTooLongIsLost(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Version: 18, Settings: map[string]string{"idle_replication_slot_timeout": "1s"}})
	w := newWorld(t, worldOptions{postgres: p})
	d := w.start()
	d.wantLog(`idle_replication_slot_timeout is 1s: a daemon that is stopped for longer loses the slot`)
	d.stop()
	w.awaitLost()
	w.refuseRun(exitSlotLost, nil, fmt.Sprintf(`slot "%s" is lost \(idle_timeout\)`, w.slot), `pg_drop_replication_slot`)
	w.beginAgain()
}

func TestP25SlotThatIsDroppedIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	d := w.start()
	w.waitDelivered()
	// While the daemon reads it: a daemon that is frozen does not come back in between.
	d.signal(syscall.SIGSTOP)
	pid := value[int](w, `select active_pid from pg_replication_slots where slot_name = $1`, w.slot)
	w.exec(`select pg_terminate_backend($1, 10000)`, pid)
	w.exec(`select pg_drop_replication_slot($1)`, w.slot)
	d.signal(syscall.SIGCONT)
	d.ends(exitSlotGone, fmt.Sprintf(`slot "%s" does not exist any more; it was confirmed up to [0-9A-F]+/[0-9A-F]+ on timeline 1, the server's WAL ends at [0-9A-F]+/[0-9A-F]+ on timeline 1`, w.slot),
		`then run: pgamqp install`)
	// And while it is down.
	for range 2 {
		w.refuseRun(exitSlotGone, nil, fmt.Sprintf(`slot "%s" does not exist, and did when pgamqp was installed; the WAL ends at [0-9A-F]+/[0-9A-F]+ on timeline 1`, w.slot),
			`then run "pgamqp install"`)
	}
	if n := len(query[string](w, `select slot_name::text from pg_replication_slots where slot_name = $1`, w.slot)); n > 0 {
		t.Error("the slot was made anew without a word")
	}
	w.beginAgain()
}

// DROP DATABASE takes an inactive slot with it.
func TestP25DatabaseThatIsDroppedStopsTheDaemon(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: p})
	d := w.start()
	d.signal(syscall.SIGSTOP)
	ctx := withDeadline(t, sqlLimit)
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	run(t, conn, `select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active`)
	run(t, conn, `drop database `+w.database+` with (force)`)
	d.signal(syscall.SIGCONT)
	d.ends(exitPrecondition, `database "`+w.database+`" does not exist`)
	w.refuseRun(exitPrecondition, nil, `database "`+w.database+`" does not exist`)
}

// Up to version 17 the first change of a row ends the stream, and it can never be read on. 18
// leaves rows out and warns. Messages need no publication, until then.
func TestP20AndP21AndP22PublicationThatIsDroppedWhileStreaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start()
	w.exec(`drop publication pgamqp`)
	d.waitLog("publication is missing; create it before anybody changes a row")
	w.exec(`select amqp.publish(1, '', 'q', 'without it')`)
	compare([]string{"without it"}, w.received(1, "q")).wantExact(t)
	w.exec(`create table t as select 1`)
	if w.postgres.Version() >= 18 {
		w.exec(`select amqp.publish(1, '', 'q', 'behind the row')`)
		compare([]string{"behind the row"}, w.received(1, "q")).wantExact(t)
		d.waitLog("server warns")
		d.wantLog(`level=ERROR msg="server warns".*code=55000.*skipped loading publication`)
		w.install()
		d.waitLog("publication is back")
		return
	}
	d.ends(exitPublication, fmt.Sprintf(`slot "%s" cannot be read on from [0-9A-F]+/[0-9A-F]+: publication "pgamqp" does not exist; .* between [0-9A-F]+/[0-9A-F]+ and [0-9A-F]+/[0-9A-F]+ \(or later\)`, w.slot),
		`creating it now does not help`)
	// What the slot holds can still be seen, by a copy of it with another plugin.
	w.exec(`select amqp.publish(1, '', 'q', 'behind the row')`)
	w.exec(`select pg_copy_logical_replication_slot($1, $2, false, 'test_decoding')`, w.slot, w.slot+"_seen")
	if seen := query[string](w, `select data from pg_logical_slot_get_changes($1, null, null) where data like '%prefix: amqp,%behind the row%'`, w.slot+"_seen"); len(seen) != 1 {
		t.Errorf("%q is seen in a copy of the slot", seen)
	}
	// The operator gives up what is behind it.
	w.refuseRun(exitPublication, nil, `publication "pgamqp" does not exist`)
	w.exec(`create publication pgamqp`)
	w.refuseRun(exitPublication, nil, `cannot be read on from 0/[0-9A-F]{5,}: `, `creating it now does not help`)
	await(t, startLimit, "the slot is free", func() bool {
		return value[bool](w, `select not active from pg_replication_slots where slot_name = $1`, w.slot)
	})
	w.exec(`select pg_replication_slot_advance($1, pg_current_wal_lsn())`, w.slot)
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'of the new time')`)
	compare([]string{"of the new time"}, w.received(1, "q")).wantExact(t)
}
