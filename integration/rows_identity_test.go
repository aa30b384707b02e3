package integration

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestTablesWhoseRowsCouldNotBeToldApartAreRefused: an application's UPDATE of a published table fails if one of its partitions
// has no identity, and before is wrong if it has another one than the table. What the hint says helps.
func TestTablesWhoseRowsCouldNotBeToldApartAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	const parted = `create table public.p (id int, note text) partition by range (id)`
	for _, c := range []struct {
		name                string
		tables              []string
		message, hint, cure string
	}{
		{
			"a partition without identity",
			[]string{
				parted, `alter table public.p replica identity full`,
				`create table public.p1 partition of public.p for values from (0) to (10) partition by range (id)`,
				`create table public."P 11" partition of public.p1 for values from (0) to (10)`,
				`create table public.p2 partition of public.p for values from (10) to (20)`,
				`alter table public.p2 replica identity full`,
			},
			`table public."P 11" has no replica identity`, `alter table public."P 11" replica identity full`, "",
		},
		{
			"a partition that knows less than its table",
			[]string{
				`create table public.p (id int primary key, note text) partition by range (id)`, `alter table public.p replica identity full`,
				`create table public.p1 partition of public.p for values from (0) to (10)`,
				`create table public.p2 partition of public.p for values from (10) to (20)`,
				`alter table public.p2 replica identity full`,
			},
			`the replica identity of public.p1 is not that of its table public.p`, `alter table public.p1 replica identity full`, "",
		},
		{
			"partitions that know more than their table",
			[]string{
				`create table public.p (id int primary key, note text) partition by range (id)`,
				`create table public.p1 partition of public.p for values from (0) to (10)`,
				`create table public.p2 partition of public.p for values from (10) to (20)`,
				`alter table public.p1 replica identity full`, `alter table public.p2 replica identity full`,
			},
			`the replica identity of public.p1, public.p2 is not that of its table public.p`,
			`alter table public.p1 replica identity default; alter table public.p2 replica identity default. Or the other way round: alter table public.p replica identity full`,
			`alter table public.p replica identity full`,
		},
		{
			"a partition without the table's index",
			[]string{
				`create table public.p (id int primary key, code int not null) partition by range (id)`,
				`create table public.p1 partition of public.p for values from (0) to (10)`,
				`create unique index "by code" on public.p (code, id)`,
				`alter table public.p replica identity using index "by code"`,
			},
			`the replica identity of public.p1 is not that of its table public.p`, `alter table public.p1 replica identity using index p1_code_id_idx`, "",
		},
		{
			"a primary key that can be deferred",
			[]string{`create table public.p (id int primary key deferrable, note text)`},
			`table public.p has no replica identity`, `alter table public.p replica identity full`, "",
		},
	} {
		w.script(append([]string{`drop table if exists public.p`}, c.tables...)...)
		var refused *pgconn.PgError
		err := w.try(`select amqp.route_table('public.p', 1, '', 'q')`)
		if !errors.As(err, &refused) || refused.Code != "55000" || !strings.Contains(refused.Message, c.message) || !strings.Contains(refused.Hint, c.hint) {
			t.Errorf("%s: %v, hint %q", c.name, err, refused)
			continue
		}
		cure := c.cure
		if cure == "" {
			cure = c.hint
		}
		w.script(
			cure, `select amqp.route_table('public.p', 1, '', 'q')`, `insert into public.p values (1, 2), (8, 2)`, `update public.p set id = id + 1`, `delete from public.p`,
		)
	}
}

// TestTableIsPublishedWithoutThoseThatInheritFromIt: these have no primary key, and would take no UPDATE any more.
func TestTableIsPublishedWithoutThoseThatInheritFromIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.parent (id int primary key)`,
		`create table public.heir () inherits (public.parent)`,
		`select amqp.route_table('public.parent', 1, '', 'q')`,
		`insert into public.heir values (1)`,
		`update public.heir set id = 2`,
		`insert into public.parent values (3)`,
	)
	w.start()
	wantChanges(t, w.changes("q"), `public.parent insert map[] map[id:3] []`)
	if !value[bool](w, `select amqp.unroute(route_id) from amqp.route`) {
		t.Error("the route is not ended")
	}
}

// TestMissingOldRowsAreWarnedOf: not in passing, as of a notice.
func TestMissingOldRowsAreWarnedOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	config, err := pgx.ParseConfig(w.url())
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = append(said, n.Severity+": "+n.Message+"; "+n.Hint) }
	ctx := withDeadline(t, sqlLimit)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) })
	run(t, conn, `create table public.by_key (id int primary key)`)
	run(t, conn, `create table public.by_all (id int primary key)`)
	run(t, conn, `alter table public.by_all replica identity full`)
	run(t, conn, `select amqp.route_table('public.by_*', 1, 'cdc')`)
	want := "WARNING: messages about public.by_key will have the old row's key only; For all of the old row: alter table public.by_key replica identity full"
	if len(said) != 1 || said[0] != want {
		t.Errorf("it said %q, want %q", said, want)
	}
}

// TestDoctorFindsPartitionsOfAnotherIdentity: each that is made later has one of its own.
func TestDoctorFindsPartitionsOfAnotherIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.script(
		`create table public.p (id int, note text) partition by range (id)`,
		`alter table public.p replica identity full`,
		`select amqp.route_table('public.p', 1, 'cdc')`,
		`create table public.p1 partition of public.p for values from (0) to (10)`,
		`create table public.p2 (id int primary key, note text)`,
		`alter table public.p attach partition public.p2 for values from (10) to (20)`,
		`create table public.p3 partition of public.p for values from (20) to (30)`,
		`alter table public.p3 replica identity full`,
	)
	_, out := pgamqp(t, "doctor", "--database-url", w.url(), "--slot", w.slot)
	for _, want := range []string{
		"UPDATE and DELETE fail on public.p1: it is published, and its rows have no replica identity",
		"the replica identity of public.p2 is not that of its table public.p: old rows in its messages are wrong",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "public.p3") {
		t.Errorf("doctor complains of a partition that is right:\n%s", out)
	}
}
