package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestPublishedRowsAndColumnsAreThoseOfThePublication: operations, and from version 15 on rows and columns, too. An update that
// takes a row into the filter is an insertion, one that takes it out a deletion.
func TestPublishedRowsAndColumnsAreThoseOfThePublication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	publication := w.publicationName()
	w.script(
		`create table public.t (id int primary key, region text)`,
		`alter table public.t replica identity full`,
		`create table public.part (id int primary key, seen text, hidden text)`,
		`select amqp.route_table('public.*', 1, '', 'q')`,
		`alter publication `+publication+` set (publish = 'insert, delete')`,
		`insert into public.t values (1, 'eu')`,
		`update public.t set region = 'us'`,
		`truncate public.part`,
		`delete from public.t`,
		`alter publication `+publication+` set (publish = 'insert, update, delete, truncate')`,
	)
	w.start()
	wantChanges(t, w.changes("q"),
		`public.t insert map[] map[id:1 region:eu] []`,
		`public.t delete map[id:1 region:us] map[] []`,
	)
	if w.postgres.Version() < 15 {
		return // no filters, no lists
	}
	w.script(
		`alter publication `+publication+` set table public.t where (region = 'eu'), public.part (id, seen)`,
		`insert into public.t values (1, 'eu'), (2, 'us')`,
		`update public.t set region = 'eu' where id = 2`,
		`update public.t set id = 3 where id = 2`,
		`update public.t set region = 'us' where id = 1`,
		`update public.t set id = 4 where id = 1`,
		`delete from public.t`,
		`insert into public.part values (1, 'a', 'b')`,
		`update public.part set hidden = 'c'`,
		`update public.part set seen = 'd'`,
		`delete from public.part`,
	)
	wantChanges(t, w.changes("q"),
		`public.t insert map[] map[id:1 region:eu] []`,
		`public.t insert map[] map[id:2 region:eu] []`,
		`public.t update map[id:2 region:eu] map[id:3 region:eu] []`,
		`public.t delete map[id:1 region:eu] map[] []`,
		`public.t delete map[id:3 region:eu] map[] []`,
		`public.part insert map[] map[id:1 seen:a] []`,
		`public.part update map[] map[id:1 seen:a] []`,
		`public.part update map[] map[id:1 seen:d] []`,
		`public.part delete map[id:1] map[] []`,
	)
}

// TestTablesThatChangeInTheMiddle: a column gets another type between two rows of a transaction, generated columns are published
// from version 18 on.
func TestTablesThatChangeInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key, n text)`,
		`create table public.generated (id int primary key, twice int generated always as (id * 2) stored)`,
		`select amqp.route_table('public.*', 1, '', 'q')`,
		`begin; insert into public.t values (1, '7'); alter table public.t alter column n type int using n::int;
			insert into public.t values (2, 8); alter table public.t alter column n type jsonb using to_jsonb(array[n]); insert into public.t values (3, '[9]');
			update public.t set n = '{"a": 1}' where id = 1; commit`,
		`insert into public.generated values (1)`,
	)
	w.start()
	wantChanges(t, w.changes("q"),
		`public.t insert map[] map[id:1 n:7] []`,
		`public.t insert map[] map[id:2 n:8] []`,
		`public.t insert map[] map[id:3 n:[9]] []`,
		`public.t update map[] map[id:1 n:map[a:1]] []`,
		`public.generated insert map[] map[id:1] []`,
	)
	if w.postgres.Version() < 18 {
		return // the publication cannot have them
	}
	w.script(
		`alter publication `+w.publicationName()+` set (publish_generated_columns = stored)`,
		`insert into public.generated values (2)`,
		`update public.generated set id = 3 where id = 2`,
	)
	wantChanges(t, w.changes("q"),
		`public.generated insert map[] map[id:2 twice:4] []`,
		`public.generated update map[id:2] map[id:3 twice:6] []`,
	)
}

// TestTruncateOfSeveralTablesIsAMessageForEach, with what it was told to do.
func TestTruncateOfSeveralTablesIsAMessageForEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.a (id int primary key)`,
		`create table public.b (id serial primary key, a int references public.a)`,
		`create table public.c (id int primary key)`,
		`create table public.unrouted (id int primary key)`,
		`select amqp.route_table('public.'||x, 1, '', 'q') from unnest('{a,b,c}'::text[]) x`,
	)
	w.start()
	for statement, want := range map[string]string{
		`truncate public.c, public.unrouted, public.b`: "[b false false c false false]",
		`truncate public.c restart identity`:           "[c false true]",
		`truncate public.a, public.c cascade`:          "[a true false b true false c true false]",
	} {
		w.exec(statement)
		w.waitDelivered()
		var got []string
		ids := map[string]bool{}
		for _, m := range w.take(1, "q") {
			var body struct {
				Op, Table       string
				Cascade         bool
				RestartIdentity bool `json:"restart_identity"`
			}
			if err := json.Unmarshal(m.Body, &body); err != nil || body.Op != "truncate" {
				t.Errorf("%s: %v", m.Body, err)
			}
			got = append(got, fmt.Sprint(body.Table, " ", body.Cascade, " ", body.RestartIdentity))
			ids[m.MessageId] = true
		}
		slices.Sort(got)
		if sorted := fmt.Sprint(got); sorted != want || len(ids) != len(got) {
			t.Errorf("%s: %s, %d ids, want %s", statement, sorted, len(ids), want)
		}
	}
}

// TestRowIsConfirmedWhenAllItsRoutesAre: it goes to two brokers, of which one takes insertions only and is down.
func TestRowIsConfirmedWhenAllItsRoutesAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	w.script(
		`create table public.t (id int primary key, n int)`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
		`select amqp.route_table('public.t', 2, '', 'q', operations => '{insert}')`,
	)
	d := w.start("--detach-after", "0s")
	consumer := w.consume(1, "q")
	w.breakBroker(d, 2)
	// An update is for the first only, and is not held up by the second.
	w.script(`insert into public.t values (1, 1)`, `update public.t set n = 2`)
	consumer.next(2)
	w.exec(`insert into public.t values (2, 1)`)
	consumer.next(1)
	inserted := w.lsn(`select pg_current_wal_insert_lsn()::text`)
	if at := w.lsn(confirmedFlush, w.slot); at >= inserted {
		t.Errorf("the position is %s, although broker 2 lacks a row of before %s", at, inserted)
	}
	if value[bool](w, `select amqp.delivered($1::text::pg_lsn)`, inserted.String()) {
		t.Error("a row counts as delivered that one of two brokers lacks")
	}
	w.mendBroker(2)
	w.waitDelivered()
	w.script(`update public.t set n = 3 where id = 1`, `delete from public.t where id = 1`)
	consumer.next(2)
	w.waitDelivered()
	var got []string
	for _, m := range w.take(2, "q") {
		got = append(got, strings.Join(strings.Fields(string(m.Body)), ""))
	}
	if len(got) != 2 || !strings.Contains(got[0], `"after":{"id":1,"n":1}`) || !strings.Contains(got[1], `"after":{"id":2,"n":1}`) {
		t.Errorf("broker 2 has %s", got)
	}
}
