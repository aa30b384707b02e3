package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// changes reads all messages about rows that have come to a queue.
func (w *world) changes(queue string) []row {
	w.t.Helper()
	var out []row
	for _, m := range w.received(1, queue) {
		var r row
		if err := json.Unmarshal(m.Body, &r); err != nil {
			w.t.Fatalf("%s: %v", m.Body, err)
		}
		out = append(out, r)
	}
	return out
}

// short is a change in one line.
func (r row) short() string {
	return fmt.Sprintf("%s.%s %s %v %v %v", r.Schema, r.Table, r.Op, r.Before, r.After, r.Unchanged)
}

func wantChanges(t *testing.T, got []row, want ...string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, s string
		if i < len(got) {
			g = got[i].short()
		}
		if i < len(want) {
			s = want[i]
		}
		if g != s {
			t.Errorf("change %d: %s, want %s", i, g, s)
		}
	}
}

// TestRowsOfTablesThatAreNotSimple: the schema changes between two rows of one transaction,
// names need quotes, partitions, several tables in one TRUNCATE, every replica identity.
func TestRowsOfTablesThatAreNotSimple(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create schema "Odd.Schema"`,
		`create table "Odd.Schema"."Tä ble" ("Säule 1" int primary key)`,
		`create table public.full_identity (id int, note text, big text)`,
		`alter table public.full_identity alter big set storage external, replica identity full`,
		`create table public.by_index (id int, code text not null unique)`,
		`alter table public.by_index replica identity using index by_index_code_key`,
		`create table public.parent (id int primary key)`,
		`create table public.child (id int primary key references public.parent)`,
		`alter publication `+w.publicationName()+` set (publish_via_partition_root = false)`,
		`create table public.parted (id int primary key, note text) partition by range (id)`,
		`create table public.parted_low partition of public.parted for values from (0) to (10)`,
		`create table public.changing (id int primary key)`,
		`create table public.generated (id int primary key, twice int generated always as (id * 2) stored)`,
		`select amqp.route_table('public.*', 1, '', 'q')`,
		`select amqp.route_table('"Odd.Schema"."Tä ble"', 1, '', 'q')`,
	)
	w.start()

	stored := strings.Repeat("x", 5000) // apart from the row, where an update that does not touch it leaves it
	w.exec(`insert into "Odd.Schema"."Tä ble" values (1)`)
	w.script(
		`insert into public.full_identity values (1, 'a', repeat('x', 5000))`,
		`update public.full_identity set note = 'b'`,
		`delete from public.full_identity`,
		`insert into public.by_index values (1, 'one')`,
		`update public.by_index set code = 'two'`,
		`delete from public.by_index`,
	)
	wantChanges(t, w.changes("q"),
		`Odd.Schema.Tä ble insert map[] map[Säule 1:1] []`,
		`public.full_identity insert map[] map[big:`+stored+` id:1 note:a] []`,
		`public.full_identity update map[big:`+stored+` id:1 note:a] map[big:`+stored+` id:1 note:b] []`,
		`public.full_identity delete map[big:`+stored+` id:1 note:b] map[] []`,
		`public.by_index insert map[] map[code:one id:1] []`,
		`public.by_index update map[code:one] map[code:two id:1] []`,
		`public.by_index delete map[code:two] map[] []`,
	)

	w.exec(`begin; insert into public.changing values (1); alter table public.changing add column note text default 'new';
		insert into public.changing values (2, 'x'); alter table public.changing rename column note to text;
		alter table public.changing rename to renamed; insert into public.renamed values (3, 'y'); drop table public.renamed; commit`)
	w.exec(`insert into public.generated values (4)`)
	w.script( // whose rows PostgreSQL lets nobody change
		`create table public.nameless (n int)`,
		`alter table public.nameless replica identity nothing`,
		`alter publication `+w.publicationName()+` add table public.nameless`,
		`insert into public.nameless values (1), (1)`,
	)
	wantChanges(t, w.changes("q"),
		`public.changing insert map[] map[id:1] []`,
		`public.changing insert map[] map[id:2 note:x] []`,
		`public.renamed insert map[] map[id:3 text:y] []`,
		`public.generated insert map[] map[id:4] []`,
		`public.nameless insert map[] map[n:1] []`,
		`public.nameless insert map[] map[n:1] []`,
	)

	w.script(
		`insert into public.parent values (1)`,
		`insert into public.child values (1)`,
		`truncate public.parent cascade`,
		`insert into public.parted values (1, 'in a partition')`,
		`alter publication `+w.publicationName()+` set (publish_via_partition_root = true)`,
		`insert into public.parted values (2, 'by the root')`,
	)
	got := w.changes("q")
	wantChanges(t, got[:2], `public.parent insert map[] map[id:1] []`, `public.child insert map[] map[id:1] []`)
	truncated := map[string]bool{}
	for _, r := range got[2:4] {
		truncated[r.Table+" "+r.Op] = true
	}
	if !truncated["parent truncate"] || !truncated["child truncate"] {
		t.Errorf("truncated %v", truncated)
	}
	wantChanges(t, got[4:],
		`public.parted_low insert map[] map[id:1 note:in a partition] []`,
		`public.parted insert map[] map[id:2 note:by the root] []`,
	)
}

// publicationName is the one that the world was installed with.
func (w *world) publicationName() string {
	return value[string](w, `select publication_name from amqp.installation`)
}

func TestRowOfManyColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	const columns = 1600
	var names []string
	for i := range columns {
		names = append(names, fmt.Sprintf("c%d int", i))
	}
	w.script(
		`create table public.wide (`+strings.Join(names, ", ")+`)`,
		`alter table public.wide replica identity full`,
		`select amqp.route_table('public.wide', 1, '', 'q')`,
		`insert into public.wide (c0, c1599) values (1, 2)`,
	)
	w.start()
	got := w.changes("q")
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	if wide := got[0].After; len(wide) != columns || wide["c0"] != 1.0 || wide["c1599"] != 2.0 || wide["c7"] != nil {
		t.Errorf("%d columns, %v", len(wide), wide["c1599"])
	}
}

// TestRowOf100MB is delivered by a broker that takes as much.
func TestRowOf100MB(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	rabbit, err := testserver.StartRabbitMQ(testserver.RabbitMQOptions{Config: []string{"max_message_size = 134217728"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rabbit.Close() })
	w := newWorld(t, worldOptions{rabbit: rabbit})
	w.queue(1, "q")
	w.script(
		`create table public.large (id int primary key, text text)`,
		`select amqp.route_table('public.large', 1, '', 'q')`,
		fmt.Sprintf(`insert into public.large values (1, repeat('x', %d))`, size),
		`insert into public.large values (2, 'small')`,
	)
	w.start()
	got := w.received(1, "q")
	if len(got) != 2 || !bytes.Contains(got[0].Body, bytes.Repeat([]byte("x"), size)) || !bytes.Contains(got[1].Body, []byte(`"id":2`)) {
		t.Errorf("%d messages came", len(got))
	}
}

// TestRowsAreNotLostWhenTheDaemonIsKilled: each row comes at least once, first deliveries in
// order, with the same message_id each time.
func TestRowsAreNotLostWhenTheDaemonIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key)`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
	)
	const kills, each = 4, 2000
	for i := range kills + 1 {
		d := w.start("--window-messages", "50")
		// One transaction, and some of one row each; COPY and INSERT ... SELECT write several rows a record.
		w.exec(`insert into public.t select n from generate_series($1::int, $2) n`, i*2*each+1, i*2*each+each)
		w.exec(`do $$ begin for n in ` + fmt.Sprintf("%d..%d", i*2*each+each+1, (i+1)*2*each) + ` loop insert into public.t values (n); commit; end loop; end $$`)
		if i < kills {
			await(t, startLimit, "some are confirmed", func() bool { return d.confirmed() > 100 })
			d.kill()
		}
	}
	ids := map[string]float64{}
	next := 1.0
	for _, m := range w.received(1, "q") {
		var r row
		if err := json.Unmarshal(m.Body, &r); err != nil {
			t.Fatal(err)
		}
		id, _ := r.After["id"].(float64)
		if known, again := ids[m.MessageId]; again {
			if known != id {
				t.Fatalf("message_id %s is that of rows %v and %v", m.MessageId, known, id)
			}
			continue
		}
		ids[m.MessageId] = id
		if id != next {
			t.Fatalf("row %v came first where %v was due", id, next)
		}
		next++
	}
	if want := float64((kills + 1) * 2 * each); next != want+1 {
		t.Errorf("%v rows came, want %v", next-1, want)
	}
}

// TestRowsOfOneCopyArriveInOrderAndInBoundedMemory: COPY writes many rows a record, all in one transaction.
func TestRowsOfOneCopyArriveInOrderAndInBoundedMemory(t *testing.T) {
	t.Parallel()
	const (
		count = 100_000
		limit = 150 << 20 // of which the race detector alone takes half
	)
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create table public.t (id int primary key, note text default repeat('x', 100))`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
	)
	d := w.start()
	c := w.consume(1, "q")
	w.exec(fmt.Sprintf(`copy public.t (id) from program 'seq %d'`, count))
	ids := make(map[string]bool, count)
	for i, m := range c.next(count) {
		var r struct{ After struct{ ID int } }
		if err := json.Unmarshal(m.Body, &r); err != nil || r.After.ID != i+1 {
			t.Fatalf("row %d is in place %d, %v", r.After.ID, i+1, err)
		}
		ids[m.MessageId] = true
	}
	if len(ids) != count {
		t.Errorf("%d rows have %d ids", count, len(ids))
	}
	w.waitDelivered()
	if peak := d.peakMemory(); peak > limit {
		t.Errorf("the daemon took %d MB", peak>>20)
	}
}

// TestCompositeTypesThatAreAlteredAreWrittenAsTheyAre: PostgreSQL does not describe a table anew for that.
func TestCompositeTypesThatAreAlteredAreWrittenAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create type public.pair as (a int, b text)`,
		`create table public.t (id serial primary key, c public.pair, d public.pair[])`,
		`select amqp.route_table('public.t', 1, '', 'q')`,
		`insert into public.t (c, d) values ('(1,x)', '{"(2,y)"}')`,
	)
	w.start()
	wantChanges(t, w.changes("q"), `public.t insert map[] map[c:map[a:1 b:x] d:[map[a:2 b:y]] id:1] []`)
	w.script(
		`alter type public.pair add attribute e int`,
		`insert into public.t (c, d) values ('(1,x,3)', '{"(2,y,)"}')`,
	)
	wantChanges(t, w.changes("q"), `public.t insert map[] map[c:map[a:1 b:x e:3] d:[map[a:2 b:y e:<nil>]] id:2] []`)
	w.exec(`alter type public.pair rename attribute a to f`)
	await(t, startLimit, "the new name comes", func() bool {
		w.exec(`insert into public.t (c) values ('(1,x,3)')`)
		got := w.changes("q")
		return strings.Contains(got[len(got)-1].short(), `map[c:map[b:x e:3 f:1] d:<nil> id:`)
	})
}
