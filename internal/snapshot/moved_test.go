package snapshot

import (
	"fmt"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
)

// noted tells a Tracker of changes as a stream does, with a note of number mark, and returns what came of them.
func noted(tracker *Tracker, mark int64, changes ...*decoder.Message) string {
	var out string
	for _, m := range changes {
		tracker.Changed(m)
		for _, move := range tracker.Moved(m) {
			if move.Restart {
				out += "restart "
				tracker.Restarted(move.Snapshot)
				continue
			}
			out += fmt.Sprintf("%d%v ", move.Snapshot, move.Key)
			tracker.Noted(move.Snapshot, mark, move.Key)
		}
	}
	return out
}

// going makes a Tracker with a snapshot whose first chunk was read in an earlier process.
func going() *Tracker {
	tracker := &Tracker{}
	tracker.Follow(map[int32]Place{7: {Schema: "public", Table: "t", Chunk: 3}, 8: {Schema: "public", Table: "u", Chunk: 3}})
	tracker.watch("public", "t")
	return tracker
}

func TestRowsWhoseKeyIsChangedWithoutAllOfTheirValuesAreReadOnceMore(t *testing.T) {
	rel := relation(false)
	full := relation(true)
	for _, c := range []struct {
		name   string
		change *decoder.Message
		want   string
	}{
		{"another key", told(rel, decoder.OpUpdate, "1 - -", "2 a ?"), "7[2] "},
		{"another key, all values", told(rel, decoder.OpUpdate, "1 - -", "2 a x"), ""},
		{"the same key", told(rel, decoder.OpUpdate, "", "1 a ?"), ""},
		{"full, whose messages have all values", told(full, decoder.OpUpdate, "1 a x", "2 a ?"), ""},
		{"a deletion", told(rel, decoder.OpDelete, "1 - -", ""), ""},
	} {
		if got := noted(going(), 1, c.change); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// A key of two columns, one of which is large and was not touched.
	two := relation(false)
	two.Columns[2].Key = true
	if got := noted(going(), 1, told(two, decoder.OpUpdate, "1 - x", "2 ? ?")); got != "7[2 x] " {
		t.Errorf("a large key: %q", got)
	}
	// Before the first chunk there is nothing that was read.
	tracker := &Tracker{}
	tracker.Follow(map[int32]Place{7: {Schema: "public", Table: "t"}})
	if got := noted(tracker, 1, told(rel, decoder.OpUpdate, "1 - -", "2 a ?")); got != "" {
		t.Errorf("before the first chunk: %q", got)
	}
}

func TestOneNoteStandsForRowsUntilAChunkTakesThem(t *testing.T) {
	rel := relation(false)
	tracker := going()
	move := func(from, to string) *decoder.Message { return told(rel, decoder.OpUpdate, from+" - -", to+" a ?") }
	s := &catalog.Snapshot{ID: 7, After: []string{"5"}}
	if got := noted(tracker, 1, move("1", "2"), move("3", "4")); got != "7[2] " {
		t.Errorf("two rows: %q", got)
	}
	if c := tracker.begin("token", rel, s, false); len(c.again) != 0 || c.mark != 0 {
		t.Errorf("a chunk of other rows takes %v, note %d", c.again, c.mark)
	}
	c := tracker.begin("token", rel, s, true)
	if fmt.Sprint(c.again) != "[[2] [4]]" || c.mark != 1 {
		t.Errorf("a chunk takes %v, note %d", c.again, c.mark)
	}
	if got := noted(tracker, 2, move("5", "6")); got != "7[6] " {
		t.Errorf("a row that comes too late for it: %q", got)
	}
	// It comes to the first one only.
	if err := tracker.fill(c, []decoder.Tuple{row("2 a x"), row("2 a x")}, 1, false); err != nil || c.mark != 0 || texts(c.Rows()) != "2 a x" {
		t.Errorf("%v, note %d, rows %s", err, c.mark, texts(c.Rows()))
	}
	tracker.drop(c)
	if c = tracker.begin("token", rel, s, true); fmt.Sprint(c.again) != "[[6] [4] [2]]" || c.mark != 2 {
		t.Errorf("the next chunk takes %v, note %d", c.again, c.mark)
	}
	// The snapshot was canceled.
	tracker.Noted(7, 0)
	if got := noted(tracker, 3, move("7", "8")); got != "" {
		t.Errorf("of a snapshot that is over: %q", got)
	}
}

// Once the end was sent, rows that are complete stay so, or the snapshot would never end.
func TestAfterTheEndOnlyRowsThatLackSomethingAreReadOnceMore(t *testing.T) {
	rel := relation(false)
	tracker := going()
	move := func(from, to string) *decoder.Message { return told(rel, decoder.OpUpdate, from+" - -", to+" a ?") }
	s := &catalog.Snapshot{ID: 7, After: []string{"5"}}
	take := func(rows int, end bool) {
		t.Helper()
		c := tracker.begin("token", rel, s, true)
		c.shows = Visibility{xmin: 100, xmax: 150}
		if err := tracker.fill(c, nil, rows, end); err != nil {
			t.Fatal(err)
		}
		if taken, err := tracker.Take(c.token); taken == nil || err != nil {
			t.Fatal(err)
		}
	}
	take(0, true)
	if got := noted(tracker, 1, move("1", "2")); got != "" {
		t.Errorf("a row after the end: %q", got)
	}
	tracker.SetBack(Place{Snapshot: 7, Schema: "public", Table: "t", Chunk: 2})
	noted(tracker, 2, move("1", "2"))
	noted(tracker, 3, move("8", "9"))
	take(2, true)
	tracker.Noted(7, 4, []string{"3"})
	if got := noted(tracker, 5, move("10", "11"), move("3", "4"), move("4", "5")); got != "" {
		t.Errorf("one note is enough: %q", got)
	}
	c := tracker.begin("token", rel, s, true)
	if fmt.Sprint(c.again) != "[[3] [4] [5]]" {
		t.Errorf("of a row that moves on %v is read", c.again)
	}
	if got := noted(tracker, 6, move("12", "13"), move("5", "6")); got != "7[6] " {
		t.Errorf("while it is read: %q", got)
	}
}

func TestTooManyMovesBeginAgain(t *testing.T) {
	rel := relation(false)
	tracker := going()
	move := func(n int) *decoder.Message {
		return told(rel, decoder.OpUpdate, fmt.Sprint(n, " - -"), fmt.Sprint(-n, " a ?"))
	}
	first := tracker.begin("token", rel, &catalog.Snapshot{ID: 7, After: []string{"5"}}, false)
	for n := range maxMoved {
		noted(tracker, 1, move(n))
	}
	if got := noted(tracker, 1, move(maxMoved), move(maxMoved+1)); got != "restart " {
		t.Errorf("one too many: %q", got)
	}
	if taken, err := tracker.Take(first.token); taken == nil || err == nil {
		t.Error("a chunk from before can be used")
	}
	// The transaction that has done it is waited for by the first chunk, so that it needs no more.
	c := tracker.begin("token", rel, &catalog.Snapshot{ID: 7}, true)
	if got := noted(tracker, 1, move(1)); got != "" || len(c.again) != 0 {
		t.Errorf("the same transaction once more: %q, %d keys", got, len(c.again))
	}
	v, err := ParseVisibility("201:201:")
	if err != nil || !tracker.shown(c, v) {
		t.Fatal("not shown", err)
	}
	later := move(2)
	later.XID = 201
	if got := noted(tracker, 2, move(1), later); got != "7[-2] " {
		t.Errorf("with the first chunk: %q", got)
	}
}
