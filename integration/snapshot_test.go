package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// snapshotLimit is for a table of some ten thousand rows.
const snapshotLimit = 2 * time.Minute

// copyOf applies messages about rows of a table with a key "id", in the order in which they came, as a
// consumer would that keeps a copy: each message_id once, large values that are not told as
// they were.
func copyOf(t *testing.T, w *world, broker int, queue string) map[string]map[string]any {
	t.Helper()
	rows, seen := map[string]map[string]any{}, map[string]bool{}
	for _, m := range w.received(broker, queue) {
		var r row
		exactly(t, m.Body, &r)
		if seen[m.MessageId] {
			continue
		}
		seen[m.MessageId] = true
		id := fmt.Sprint(r.After["id"])
		if r.Before != nil {
			if old := fmt.Sprint(r.Before["id"]); r.After == nil || old != id {
				if moved := rows[old]; moved != nil && r.After != nil {
					rows[id] = moved
				}
				delete(rows, old)
			}
		}
		if r.After == nil {
			continue
		}
		for _, column := range r.Unchanged {
			if had, known := rows[id][column]; known {
				r.After[column] = had
			}
		}
		rows[id] = r.After
	}
	return rows
}

// exactly reads JSON with its numbers as they are written: a float of a million prints as 1e+06.
func exactly(t *testing.T, text []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// wantCopy compares such a copy with the table.
func wantCopy(t *testing.T, w *world, table string, got map[string]map[string]any) {
	t.Helper()
	want := value[string](w, `select coalesce(jsonb_object_agg(x.id::text, to_jsonb(x)), '{}')::text from `+table+` x`)
	var rows map[string]map[string]any
	exactly(t, []byte(want), &rows)
	wrong := 0
	for id, row := range rows {
		if fmt.Sprint(got[id]) != fmt.Sprint(row) {
			if wrong++; wrong <= 3 {
				t.Errorf("row %s is %.200s in the copy, %.200s in the table", id, fmt.Sprint(got[id]), fmt.Sprint(row))
			}
		}
	}
	for id := range got {
		if rows[id] == nil {
			if wrong++; wrong <= 3 {
				t.Errorf("row %s is in the copy, not in the table", id)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d rows differ", wrong, len(rows))
	}
}

// awaitSnapshots waits until all are over, and tells of one that failed.
func (w *world) awaitSnapshots() {
	w.t.Helper()
	w.awaitSnapshotsFor(snapshotLimit)
}

func (w *world) awaitSnapshotsFor(limit time.Duration) {
	w.t.Helper()
	await(w.t, limit, "the snapshots are done", func() bool {
		return value[bool](w, `select not exists (select from amqp.snapshot where state in ('running', 'paused'))`)
	})
	if failed := value[string](w, `select coalesce(string_agg(table_name || ': ' || error, ', '), '') from amqp.snapshot where state = 'failed'`); failed != "" {
		w.t.Errorf("failed: %s", failed)
	}
}

func TestSnapshotSendsWhatATableHasAlready(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q", "places", "parts")
	w.script(
		`create table public.orders (id int primary key, note text, price numeric(10,2))`,
		`insert into public.orders select n, 'note ' || n, n / 100.0 from generate_series(1, 4500) n`,
		// Without a key it is read in the order in which it lies on the disk.
		`create table public."No Key" (id int, note text)`,
		`alter table public."No Key" replica identity full`,
		`insert into public."No Key" select n, repeat('x', 500) from generate_series(1, 6000) n`,
		`create table public.parts (id int, name text, primary key (name, id)) partition by hash (id)`,
		`create table public.parts_0 partition of public.parts for values with (modulus 2, remainder 0)`,
		`create table public.parts_1 partition of public.parts for values with (modulus 2, remainder 1)`,
		`insert into public.parts select n, 'p ''' || n % 7 from generate_series(1, 2500) n`,
		`select amqp.route_table('public.orders', 1, '', 'q', numeric_as => 'number')`,
		`select amqp.route_table('public."No Key"', 1, '', 'places')`,
		`select amqp.route_table('public.parts', 1, '', 'parts')`,
	)
	w.start()
	w.exec(`select amqp.snapshot('public.*')`)
	w.awaitSnapshots()
	w.waitDelivered()
	for queue, table := range map[string]string{"q": "public.orders", "places": `public."No Key"`, "parts": "public.parts"} {
		got := copyOf(t, w, 1, queue)
		if n := value[int](w, `select count(*)::int from `+table); len(got) != n {
			t.Errorf("%s: %d rows came, want %d", table, len(got), n)
		}
		wantCopy(t, w, table, got)
	}
}

// TestSnapshotAndChangesMakeACopy: rows change in all ways while they are read, by many at a time, and
// the daemon is killed on the way. PGAMQP_TEST_SNAPSHOT_ROWS makes the table larger.
func TestSnapshotAndChangesMakeACopy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	const kills = 5
	rows := 30_000
	if more := os.Getenv("PGAMQP_TEST_SNAPSHOT_ROWS"); more != "" {
		var err error
		if rows, err = strconv.Atoi(more); err != nil {
			t.Fatal(err)
		}
	}
	limit := snapshotLimit + 5*time.Duration(rows)*time.Millisecond
	w.script(
		`create table public.t (id int primary key, n int not null default 0, big text)`,
		`alter table public.t alter big set storage external`,
		fmt.Sprintf(`insert into public.t select n, 0, case when n %% 50 = 0 then repeat(md5(n::text), 100) end from generate_series(1, %d) n`, rows),
		`select amqp.route_table('public.t', 1, '', 'q')`,
		`create procedure public.work(seed float) language plpgsql as $$
			begin
				perform setseed(seed);
				for i in 1 .. 1000000 loop
					exit when exists (select from public.over);
					begin case (random() * 6)::int
						when 0 then update public.t set n = n + 1 where id = 1 + (random() * `+fmt.Sprint(rows)+`)::int;
						when 1 then update public.t set n = n + 1, big = repeat(md5(n::text), 90) where id = 50 * (random() * `+fmt.Sprint(rows/50)+`)::int;
						when 2 then delete from public.t where id = 1 + (random() * `+fmt.Sprint(rows)+`)::int;
						when 3 then insert into public.t values (1 + (random() * `+fmt.Sprint(rows)+`)::int, -1) on conflict do nothing;
						when 4 then update public.t set n = n + 1 where id in (select 50 * (random() * `+fmt.Sprint(rows/50)+`)::int from generate_series(1, 20));
						when 5 then update public.t set id = -id, n = n + 1 where abs(id) = 50 * (random() * `+fmt.Sprint(rows/50)+`)::int; -- to what was read
						else update public.t set id = id + `+fmt.Sprint(rows)+`, n = n + 1 where id = 50 * (random() * `+fmt.Sprint(rows/50)+`)::int;
					end case; exception when unique_violation or deadlock_detected then null; end;
					commit;
					-- Whoever changes more than is delivered makes each chunk come later than the one before.
					while (select pg_current_wal_lsn() - confirmed_flush_lsn > 1000000 from pg_replication_slots where slot_name = '`+w.slot+`') loop
						perform pg_sleep(0.01);
					end loop;
				end loop;
			end $$`,
		`create table public.over ()`,
	)
	d := w.start("--window-messages", "200")
	w.exec(`select amqp.snapshot('public.t')`)
	done := make(chan error, 3)
	for i := range cap(done) {
		conn := w.connect()
		go func() {
			_, err := conn.Exec(t.Context(), fmt.Sprintf(`call public.work(0.%d)`, i+1))
			done <- err
		}()
	}
	for i := range kills {
		await(t, limit, "some of it is read", func() bool {
			return value[int](w, `select rows_read::int from amqp.snapshot`) > i*rows/(kills+2)
		})
		d.kill()
		d = w.start("--window-messages", "200")
	}
	w.awaitSnapshotsFor(limit)
	w.exec(`insert into public.over default values`)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.waitDelivered()
	wantCopy(t, w, "public.t", copyOf(t, w, 1, "q"))
}

// TestSnapshotWaitsForADetachedLane: a broker whose own stream knows nothing of the rows that were read.
func TestSnapshotWaitsForADetachedLane(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	p := startProxy(t, w.rabbit.Addr())
	p.delay(50 * time.Millisecond) // with a window of 100 the rows need more than ten seconds
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, p.port())
	const rows = 12000
	w.script(
		`create table public.t (id int primary key, n int not null default 0)`,
		fmt.Sprintf(`insert into public.t select n from generate_series(1, %d) n`, rows),
		`create table public.work (id serial primary key)`,
		`select amqp.route_table('public.t', 2, '', 'q')`,
		`select amqp.route_table('public.work', 1, '', 'q')`,
	)
	d := w.start("--detach-after", "1s", "--window-messages", "100")
	w.exec(`select amqp.snapshot('public.t')`)
	await(t, snapshotLimit, "some of it is read", func() bool { return value[int](w, `select rows_read::int from amqp.snapshot`) > rows/4 })
	w.breakBroker(d, 2)
	await(t, time.Minute, "broker 2 is detached", func() bool {
		w.exec(`insert into public.work default values`)
		return w.ownSlots() == 1
	})
	w.exec(`update public.t set n = id where id % 3 = 0`)
	w.exec(`delete from public.t where id % 7 = 0`)
	await(t, snapshotLimit, "the snapshot waits", func() bool {
		return value[bool](w, `select coalesce(error, '') like '%is detached%' from amqp.snapshot`)
	})
	if state := value[string](w, `select state from amqp.snapshot`); state != "running" {
		t.Errorf("the snapshot is %s", state)
	}
	w.mendBroker(2)
	w.waitOwnSlots(0)
	w.awaitSnapshots()
	w.waitDelivered()
	wantCopy(t, w, "public.t", copyOf(t, w, 2, "q"))
}

// TestSnapshotOfKeysThatAreNotTheWholeIndex: what an index includes besides, and one that is checked at the end of
// a transaction, which identifies nothing. Rows change while they are read.
func TestSnapshotOfKeysThatAreNotTheWholeIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q", "later")
	const rows = 9000
	w.script(
		`create table public.t (id int, note text, primary key (id) include (note))`,
		`create table public.later (id int primary key deferrable, note text)`,
		fmt.Sprintf(`insert into public.t select n, 'old' from generate_series(1, %d) n`, rows),
		fmt.Sprintf(`insert into public.later select n, 'old' from generate_series(1, %d) n`, rows),
		`create table public.over ()`,
		`create procedure public.work() language plpgsql as $$
			begin
				for i in 1 .. 1000000 loop
					exit when exists (select from public.over);
					update public.t set note = 'new ' || i where id = 1 + (random() * `+fmt.Sprint(rows-1)+`)::int;
					insert into public.later values (`+fmt.Sprint(rows)+` + i, 'new');
					commit;
					while (select pg_current_wal_lsn() - confirmed_flush_lsn > 1000000 from pg_replication_slots where slot_name = '`+w.slot+`') loop
						perform pg_sleep(0.01);
					end loop;
				end loop;
			end $$`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
		// amqp.route_table wants a table whose rows can be identified.
		`insert into amqp.route (broker_id, exchange, schema_name, table_name, routing_key) values (1, '', 'public', 'later', 'later')`,
		`alter publication `+w.publicationName()+` add table public.later`,
	)
	d := w.start("--window-messages", "200")
	working := make(chan error, 1)
	conn := w.connect()
	go func() {
		_, err := conn.Exec(t.Context(), `call public.work()`)
		working <- err
	}()
	w.exec(`select amqp.snapshot('public.*')`)
	w.awaitSnapshots()
	w.exec(`insert into public.over default values`)
	if err := <-working; err != nil {
		t.Fatal(err)
	}
	w.waitDelivered()
	wantCopy(t, w, "public.t", copyOf(t, w, 1, "q"))
	wantCopy(t, w, "public.later", copyOf(t, w, 1, "later"))
	if again := d.metric("pgamqp_snapshot_repeated_chunks_total"); again > 0 {
		t.Errorf("%v parts were read again", again)
	}
}

// TestSnapshotCanBeStopped, resumed and canceled, and says why it fails.
func TestSnapshotCanBeStopped(t *testing.T) {
	t.Parallel()
	w, p := behindProxy(t)
	const rows = 20000
	w.script(
		`create table public.t (id int primary key)`,
		fmt.Sprintf(`insert into public.t select n from generate_series(1, %d) n`, rows),
		`select amqp.route_table('public.t', 1, '', 'q')`,
	)
	d := w.start("--window-messages", "50")
	url := w.postgres.URL(w.database)
	command := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), shared.program, append([]string{"snapshot", "--database-url", url}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := command(); !strings.Contains(out, "There is no snapshot") {
		t.Errorf("none are shown as\n%s", out)
	}
	p.freeze() // or it may be over before the next command has begun
	if out := command("--table", "public.t"); !strings.Contains(out, "public.t  running") {
		t.Errorf("a new one is shown as\n%s", out)
	}
	await(t, snapshotLimit, "some of it is read", func() bool { return value[int](w, `select rows_read::int from amqp.snapshot`) > 0 })
	if out := command("--pause", "1"); !strings.Contains(out, "paused") {
		t.Errorf("a paused one is shown as\n%s", out)
	}
	read := value[int](w, `select rows_read::int from amqp.snapshot`)
	p.thaw()
	w.waitDelivered()
	if now := value[int](w, `select rows_read::int from amqp.snapshot`); now > read || read >= rows {
		t.Errorf("%d rows were read when it was paused, %d later", read, now)
	}
	if out := command("--resume", "1", "--wait"); !strings.Contains(out, fmt.Sprintf("public.t: done, %d rows", rows)) {
		t.Errorf("the end is shown as\n%s", out)
	}
	w.waitDelivered()
	wantCopy(t, w, "public.t", copyOf(t, w, 1, "q"))

	wantMetrics := func(sent float64) {
		t.Helper()
		await(t, startLimit, "no snapshot is taken", func() bool { return d.reading("pgamqp_snapshot_running") == 0 })
		if n, again := d.metric("pgamqp_snapshot_rows_total"), d.metric("pgamqp_snapshot_repeated_chunks_total"); n != sent || again != 0 {
			t.Errorf("%v rows were sent and %v parts repeated, want %v and 0", n, again, sent)
		}
	}
	wantMetrics(rows)

	p.freeze()
	w.exec(`select amqp.snapshot('public.t')`) // a second time
	await(t, snapshotLimit, "a snapshot is taken", func() bool { return d.reading("pgamqp_snapshot_running") == 1 })
	p.thaw()
	w.awaitSnapshots()
	wantMetrics(2 * rows)
	w.exec(`alter publication ` + w.publicationName() + ` drop table public.t`)
	if err := w.try(`select amqp.snapshot('public.t')`); err == nil {
		t.Error("a table that is not published any more was taken")
	}
}

// TestSnapshotKeepsToThePublication: rows and columns that it leaves out, which 14 cannot say, do not come
// from a snapshot either.
func TestSnapshotKeepsToThePublication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key, note text, secret text)`,
		`insert into public.t select n, 'n' || n, 's' from generate_series(1, 10) n`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
	)
	want := "10 of [id note secret]"
	if w.postgres.Version() >= 15 {
		w.exec(`alter publication ` + w.publicationName() + ` set table public.t (id, note) where (id % 2 = 0)`)
		want = "5 of [id note]"
	}
	w.exec(`select amqp.snapshot('public.t')`)
	w.start()
	w.awaitSnapshots()
	rows := w.changes("q")
	var columns []string
	for name := range rows[0].After {
		columns = append(columns, name)
	}
	slices.Sort(columns)
	if got := fmt.Sprint(len(rows), " of ", columns); got != want {
		t.Errorf("%s came, want %s", got, want)
	}
}

// TestSnapshotThatCannotBeTakenFails with the reason, and can be resumed when that is gone.
func TestSnapshotThatCannotBeTakenFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key)`,
		`insert into public.t values (1)`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
		`select amqp.snapshot('public.t')`,
		`alter table public.t rename to u`,
	)
	d := w.start()
	failed := 0.0
	fails := func(why string) {
		t.Helper()
		await(t, snapshotLimit, "the snapshot fails", func() bool { return value[string](w, `select state from amqp.snapshot`) == "failed" })
		if text := value[string](w, `select error from amqp.snapshot`); !strings.Contains(text, why) {
			t.Errorf("failed with %q, which does not say %q", text, why)
		}
		failed++
		if n := d.metric("pgamqp_snapshot_failures_total", `result="failed"`); n != failed {
			t.Errorf("the metric says that %v snapshots have failed, not %v", n, failed)
		}
	}
	fails("not there, or not published")
	w.exec(`alter table public.u rename to t`)
	w.script(
		`alter table public.t rename to old`, `create table public.t (id int primary key)`,
		`alter publication `+w.publicationName()+` add table public.t`, `select amqp.snapshot_resume(1)`,
	)
	fails("another table has its name now")
	w.script(`drop table public.t`, `alter table public.old rename to t`, `delete from amqp.route`, `select amqp.snapshot_resume(1)`)
	fails("no route takes rows")
	w.script(`select amqp.route_table('public.t', 1, '', 'q')`, `select amqp.snapshot_cancel(1)`, `select amqp.snapshot('public.t')`)
	w.awaitSnapshots()
	wantCopy(t, w, "public.t", copyOf(t, w, 1, "q"))
}

// TestSnapshotWaitsForWhatNobodySeesYet: a commit that waits for a standby is in the stream, and neither
// the row that it has changed nor the wish for a snapshot can be seen.
func TestSnapshotWaitsForWhatNobodySeesYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key, n int)`,
		`insert into public.t select n, 0 from generate_series(1, 100) n`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
	)
	d := w.start()
	w.waitDelivered() // the route, too, of which the daemon keeps a note
	standby := func(name string) {
		t.Helper()
		w.exec(`set synchronous_commit = local`)
		w.exec(`alter system set synchronous_standby_names = '` + name + `'`)
		w.exec(`select pg_reload_conf()`)
		await(t, startLimit, "the setting", func() bool { return value[string](w, `show synchronous_standby_names`) == name })
	}
	for round, c := range []struct{ ask, until string }{
		{`select amqp.snapshot('public.t')`, "is not visible yet"},
		{`set synchronous_commit = local; select amqp.snapshot('public.t')`, `msg="a snapshot goes on" snapshot=2`},
	} {
		standby("nobody")
		before := d.confirmed()
		done := make(chan error, 2)
		hang := func(statement string) {
			conn := w.connect()
			go func() {
				_, err := conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
				done <- err
			}()
		}
		hang(fmt.Sprintf(`update public.t set n = %d where id = 1`, round+1))
		await(t, startLimit, "the change is delivered", func() bool { return d.confirmed() > before })
		hang(c.ask)
		d.waitLog(c.until)
		standby("")
		for range cap(done) {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		w.awaitSnapshots()
		w.waitDelivered()
	}
	wantCopy(t, w, "public.t", copyOf(t, w, 1, "q"))
}
