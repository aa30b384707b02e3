package snapshot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
)

// relation is a table with a key, or under FULL.
func relation(full bool) *decoder.Relation {
	return &decoder.Relation{Schema: "public", Name: "t", Columns: []decoder.Column{
		{Name: "id", Key: true, Type: 23}, {Name: "note", Key: full, Type: 25}, {Name: "big", Key: full, Type: 25},
	}}
}

// row reads a row such as "1 a ?": a dash is NULL, a question mark a value that an update did not touch.
func row(text string) decoder.Tuple {
	t := decoder.Tuple{}
	for _, word := range strings.Fields(text) {
		switch word {
		case "-":
			t = t.AppendValue(decoder.Value{State: decoder.Null})
		case "?":
			t = t.AppendValue(decoder.Value{State: decoder.Unchanged})
		default:
			t = t.AppendValue(decoder.Value{State: decoder.Text, Text: []byte(word)})
		}
	}
	return t
}

func texts(rows []decoder.Tuple) string {
	var all []string
	for _, r := range rows {
		var words []string
		for _, v := range r.Values(nil) {
			switch v.State {
			case decoder.Null:
				words = append(words, "-")
			case decoder.Unchanged:
				words = append(words, "?")
			default:
				words = append(words, string(v.Text))
			}
		}
		all = append(all, strings.Join(words, " "))
	}
	return strings.Join(all, ", ")
}

// told is a change that the stream tells, by transaction 200, which the chunk's snapshot does not show.
func told(rel *decoder.Relation, op decoder.Op, old, after string) *decoder.Message {
	c := &decoder.Change{Op: op, Relation: rel}
	if old != "" {
		c.Old = row(old)
		c.KeyOnly = !rel.Columns[1].Key
	}
	if after != "" {
		c.New = row(after)
	}
	return &decoder.Message{XID: 200, Change: c}
}

// follow makes a Tracker that follows the table and has begun a chunk.
func follow(t *testing.T, rel *decoder.Relation) (*Tracker, *Chunk) {
	t.Helper()
	tracker := &Tracker{}
	tracker.watch("public", "t")
	c := tracker.begin("token", rel, &catalog.Snapshot{ID: 1}, true)
	v, err := ParseVisibility("100:150:120")
	if err != nil {
		t.Fatal(err)
	}
	if !tracker.shown(c, v) {
		t.Fatal("a snapshot does not show what was never told")
	}
	return tracker, c
}

func TestRowsThatTheStreamHasToldOfAreLeftOut(t *testing.T) {
	const rows = "1 a x,2 b y,3 c z"
	for _, full := range []bool{false, true} {
		rel := relation(full)
		key := func(id, all string) string {
			if full {
				return all
			}
			return id + " - -"
		}
		for _, c := range []struct {
			name    string
			changes []*decoder.Message
			want    string
		}{
			{"nothing", nil, "1 a x, 2 b y, 3 c z"},
			{"an update", []*decoder.Message{told(rel, decoder.OpUpdate, fullOnly(full, "2 b y"), "2 B Y")}, "1 a x, 3 c z"},
			{"a deletion", []*decoder.Message{told(rel, decoder.OpDelete, key("2", "2 b y"), "")}, "1 a x, 3 c z"},
			{"an insertion", []*decoder.Message{told(rel, decoder.OpInsert, "", "4 d w")}, "1 a x, 2 b y, 3 c z"},
			{"a change of the key", []*decoder.Message{told(rel, decoder.OpUpdate, key("2", "2 b y"), "9 b y")}, "1 a x, 3 c z"},
			{"another row", []*decoder.Message{told(rel, decoder.OpDelete, key("7", "7 b y"), "")}, "1 a x, 2 b y, 3 c z"},
			{"a truncation", []*decoder.Message{told(rel, decoder.OpTruncate, "", "")}, ""},
			{"a row that comes again", []*decoder.Message{
				told(rel, decoder.OpDelete, key("2", "2 b y"), ""), told(rel, decoder.OpInsert, "", "2 n n"), told(rel, decoder.OpUpdate, fullOnly(full, "2 n n"), "2 m ?"),
			}, "1 a x, 3 c z"},
		} {
			for _, early := range []bool{false, true} {
				if got := settle(t, rel, rows, c.changes, early); got != c.want {
					t.Errorf("%s, full identity %t, while it was read %t: %s, want %s", c.name, full, early, got, c.want)
				}
			}
		}
	}
}

func fullOnly(full bool, old string) string {
	if full {
		return old
	}
	return ""
}

// settle gives a chunk rows and changes, and returns the rows that are left at its place.
func settle(t *testing.T, rel *decoder.Relation, rows string, changes []*decoder.Message, early bool) string {
	t.Helper()
	tracker, c := follow(t, rel)
	tell := func() {
		for _, m := range changes {
			tracker.Changed(m)
		}
	}
	if early {
		tell()
	}
	var all []decoder.Tuple
	for _, r := range strings.Split(rows, ",") {
		all = append(all, row(r))
	}
	if err := tracker.fill(c, all, 0, false); err != nil {
		t.Fatal(err)
	}
	if !early {
		tell()
	}
	taken, err := tracker.Take(c.token)
	if err != nil || taken != c {
		t.Fatalf("took %v, %v", taken, err)
	}
	return texts(taken.Rows())
}

// An update that lacks large values needs a row that has them, in the state that the stream has told.
func TestRowsComeWithWhatUpdatesLack(t *testing.T) {
	rel := relation(false)
	for _, c := range []struct {
		name    string
		changes []*decoder.Message
		want    string
	}{
		{"one", []*decoder.Message{told(rel, decoder.OpUpdate, "", "2 B ?")}, "1 a x, 2 B y"},
		{"two", []*decoder.Message{told(rel, decoder.OpUpdate, "", "2 B ?"), told(rel, decoder.OpUpdate, "", "2 C ?")}, "1 a x, 2 C y"},
		{"then a whole one", []*decoder.Message{told(rel, decoder.OpUpdate, "", "2 B ?"), told(rel, decoder.OpUpdate, "", "2 C Y")}, "1 a x"},
		{"then a deletion", []*decoder.Message{told(rel, decoder.OpUpdate, "", "2 B ?"), told(rel, decoder.OpDelete, "2 - -", "")}, "1 a x"},
		{"with another key", []*decoder.Message{told(rel, decoder.OpUpdate, "2 - -", "7 B ?"), told(rel, decoder.OpUpdate, "", "7 C ?")}, "1 a x, 7 C y"},
	} {
		for _, early := range []bool{false, true} {
			if got := settle(t, rel, "1 a x,2 b y", c.changes, early); got != c.want {
				t.Errorf("%s, while it was read %t: %s, want %s", c.name, early, got, c.want)
			}
		}
	}
}

func TestRowsThatAreEqualAreLeftOutOneByOne(t *testing.T) {
	rel := relation(true)
	deleted := told(rel, decoder.OpDelete, "1 a x", "")
	if got := settle(t, rel, "1 a x,1 a x,1 a x", []*decoder.Message{deleted, deleted}, false); got != "1 a x" {
		t.Errorf("%s is left of three, two of which were deleted", got)
	}
}

// Rows without a key, or with all columns as their key, may be equal. What comes in addition leaves out
// none that was there.
func TestInsertionsLeaveOutNoRowThatMayBeAnother(t *testing.T) {
	full, keyless, keyed := relation(true), relation(false), relation(false)
	keyless.Columns[0].Key = false
	insert := func(rel *decoder.Relation, row string) *decoder.Message { return told(rel, decoder.OpInsert, "", row) }
	remove := func(rel *decoder.Relation, row string) *decoder.Message { return told(rel, decoder.OpDelete, row, "") }
	for _, c := range []struct {
		name    string
		rel     *decoder.Relation
		changes []*decoder.Message
		want    string
	}{
		{"insertions, no key", keyless, []*decoder.Message{insert(keyless, "3 c z"), insert(keyless, "1 a x")}, "1 a x, 2 b y"},
		{"an equal row, full", full, []*decoder.Message{insert(full, "1 a x")}, "1 a x, 2 b y"},
		{"an equal row that goes again, full", full, []*decoder.Message{insert(full, "1 a x"), remove(full, "1 a x")}, "1 a x, 2 b y"},
		{"an equal row, and both go, full", full, []*decoder.Message{insert(full, "1 a x"), remove(full, "1 a x"), remove(full, "1 a x")}, "2 b y"},
		{"a row that goes and comes again, full", full, []*decoder.Message{remove(full, "1 a x"), insert(full, "1 a x")}, "2 b y"},
		{"a row that becomes equal and another one, full", full, []*decoder.Message{
			told(full, decoder.OpUpdate, "2 b y", "1 a x"), told(full, decoder.OpUpdate, "1 a x", "2 b y"),
		}, "1 a x"},
		// Its deletion is not told where the publication leaves deletions out.
		{"a key that comes again", keyed, []*decoder.Message{insert(keyed, "1 n n")}, "2 b y"},
	} {
		for _, early := range []bool{false, true} {
			if got := settle(t, c.rel, "1 a x,2 b y", c.changes, early); got != c.want {
				t.Errorf("%s, while it was read %t: %s, want %s", c.name, early, got, c.want)
			}
		}
	}
}

// What the snapshot shows is in the rows.
func TestTransactionsThatTheSnapshotShowsLeaveNothingOut(t *testing.T) {
	rel := relation(false)
	for xid, want := range map[uint32]string{99: "1 a x", 119: "1 a x", 120: "", 121: "1 a x", 149: "1 a x", 150: "", 151: ""} {
		m := told(rel, decoder.OpUpdate, "", "1 b x")
		m.XID = xid
		if got := settle(t, rel, "1 a x", []*decoder.Message{m}, false); got != want {
			t.Errorf("transaction %d: %q is left, want %q", xid, got, want)
		}
	}
}

// The stream is faster than the server shows a transaction to others.
func TestChunkWaitsForWhatTheStreamHasToldBefore(t *testing.T) {
	rel := relation(false)
	tracker := &Tracker{}
	tracker.watch("public", "t")
	tracker.Changed(told(rel, decoder.OpUpdate, "", "1 b x")) // by transaction 200
	c := tracker.begin("token", rel, &catalog.Snapshot{ID: 1}, true)
	during := told(rel, decoder.OpUpdate, "", "2 b x")
	during.XID = 300
	tracker.Changed(during)
	for text, want := range map[string]bool{"100:150:": false, "100:201:200": false, "100:201:199": true} {
		v, err := ParseVisibility(text)
		if err != nil {
			t.Fatal(err)
		}
		if tracker.shown(c, v) != want {
			t.Errorf("%s will do: %t", text, !want)
		}
	}
	// The next one waits for what came while this one was read, and no more for the first.
	if next := tracker.begin("token", rel, &catalog.Snapshot{ID: 1}, true); len(next.before) != 1 || next.before[0] != 300 {
		t.Errorf("the next chunk waits for %v", next.before)
	}
}

// A snapshot shows for good what it shows, so there may be any number of such transactions while it is used.
func TestTransactionsThatAreShownAreNotKept(t *testing.T) {
	rel := relation(false)
	tracker := &Tracker{}
	tracker.watch("public", "t")
	look := func(text string) {
		t.Helper()
		v, err := ParseVisibility(text)
		if err != nil {
			t.Fatal(err)
		}
		tracker.seen(v)
	}
	tell := func(from, to uint32) {
		for xid := from; xid < to; xid++ {
			m := told(rel, decoder.OpUpdate, "", "1 b x")
			m.XID = xid
			tracker.Changed(m)
		}
	}
	tell(100, 1000)
	look("100:900:950")
	if n := len(tracker.unseen); n != 100 {
		t.Errorf("%d transactions are kept of 100 that are not shown", n)
	}
	c := tracker.begin("token", rel, &catalog.Snapshot{ID: 1}, true)
	v, err := ParseVisibility("2000:2000:")
	if err != nil || !tracker.shown(c, v) {
		t.Fatal("a snapshot does not show what has committed", err)
	}
	tell(1000, 2000)
	if n := len(tracker.unseen); n != 0 {
		t.Errorf("%d transactions are kept although the last chunk's snapshot shows them", n)
	}
	tell(2000, 2010)
	if n := len(tracker.unseen); n != 10 {
		t.Errorf("%d transactions are kept of 10 that it does not show", n)
	}
	// Another table begins anew.
	tracker.watch("public", "t")
	if tell(100, 101); len(tracker.unseen) != 1 {
		t.Error("what an earlier snapshot has shown holds for another one")
	}
}

func TestChunksThatCannotBeUsed(t *testing.T) {
	rel := relation(false)
	altered := relation(false)
	altered.Columns = append(altered.Columns, decoder.Column{Name: "new", Type: 25})
	tracker, c := follow(t, rel)
	if err := tracker.fill(c, nil, 0, false); err != nil {
		t.Fatal(err)
	}
	tracker.Changed(told(altered, decoder.OpInsert, "", "1 a x -"))
	if taken, err := tracker.Take(c.token); taken != c || err != errAltered { //nolint:errorlint // the very one
		t.Errorf("of a table that was altered: %v", err)
	}

	tracker, c = follow(t, rel)
	for range maxEarly + 1 {
		tracker.Changed(told(rel, decoder.OpInsert, "", "1 a x"))
	}
	if err := tracker.fill(c, nil, 0, false); err != errBusy { //nolint:errorlint // the very one
		t.Errorf("of a table that changes too fast: %v", err)
	}

	tracker, c = follow(t, rel)
	if taken, _ := tracker.Take("another"); taken != nil {
		t.Error("took a chunk of another token")
	}
	tracker.watch("", "")
	if taken, _ := tracker.Take(c.token); taken != nil {
		t.Error("took a chunk of a stream that has ended")
	}
}

func TestOtherTablesDoNotConcernTheChunk(t *testing.T) {
	rel := relation(false)
	other := relation(false)
	other.Name = "u"
	if got := settle(t, rel, "1 a x", []*decoder.Message{told(other, decoder.OpDelete, "1 - -", "")}, false); got != "1 a x" {
		t.Errorf("%q is left", got)
	}
}

// Numbers of transactions wrap around, the server's own have 64 bits.
func TestVisibilityKnowsTransactionsByTheirLowerHalf(t *testing.T) {
	v, err := ParseVisibility("8589934590:8589934600:8589934593,8589934598") // 2^33 = 8589934592
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint32]bool{0xffffffff: true, 0xfffffffd: true, 0: true, 1: false, 2: true, 6: false, 7: true, 8: false, 100: false, 0x80000000: false, 0x80000009: true} {
		if got := v.Shows(xid); got != want {
			t.Errorf("shows %d: %t", xid, got)
		}
	}
	for _, bad := range []string{"", "1", "1:2", "a:2:", "1:b:", "1:2:c"} {
		if _, err := ParseVisibility(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestPlacesAreRead(t *testing.T) {
	p, err := ParsePlace([]byte(`{"snapshot": 3, "chunk": 7, "schema": "s", "table": "t", "after": ["1", "a"], "rows": 20, "end": true, "token": "x-1", "moved": [["1"]]}`))
	if err != nil || fmt.Sprintf("%+v", p) != "{Snapshot:3 Chunk:7 Schema:s Table:t After:[1 a] Rows:20 End:true Token:x-1 Moved:[[1]]}" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := ParsePlace([]byte("nonsense")); err == nil {
		t.Error("no error")
	}
}
