package rows

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

func route(id int32, key string) Route {
	return Route{
		ID: id, BrokerID: 1, Exchange: "cdc", Schema: "public", Table: "*",
		Operations: []string{"insert", "update", "delete", "truncate"}, RoutingKey: key, Format: FormatJSON,
	}
}

func version(announced, committed pglogrepl.LSN, key string) Version {
	return Version{Announced: announced, Committed: committed, Routes: []Route{route(1, key)}}
}

// Of all versions the last one holds whose change lies before the stream's start.
func TestStreamBeginsWithTheRoutesOfItsStart(t *testing.T) {
	versions := []Version{
		version(0x10, 0x100, "first"), version(0x110, 0x200, "second"), version(0x120, 0x200, "second, again"),
		version(0x300, 0, "never seen"), version(0x400, 0x500, "last"),
	}
	for _, c := range []struct {
		from pglogrepl.LSN
		want string
	}{
		{0x50, ""},
		{0x100, ""},
		{0x101, "first"},
		{0x200, "first"},
		{0x201, "second, again"},
		{0x300, "second, again"},
		{0x301, "never seen"},
		{0x500, "never seen"},
		{0x501, "last"},
		{0x1000, "last"},
	} {
		r := NewRouter(NewTypes(nil), Origin{}, time.Now)
		if err := r.Begin(c.from, versions); err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(r.routes) > 0 {
			got = r.routes[0].RoutingKey
		}
		if got != c.want {
			t.Errorf("from %s the routes are %q, want %q", c.from, got, c.want)
		}
	}
}

func tuple(values ...string) decoder.Tuple {
	t := decoder.Tuple{}
	for _, v := range values {
		if v == "null" || v == "unchanged" {
			t = append(t, v[0])
			continue
		}
		t = append(t, 't', 0, 0, 0, byte(len(v)))
		t = append(t, v...)
	}
	return t
}

func messageOf(c decoder.Change) *decoder.Message {
	c.Ordinal = 3
	return &decoder.Message{ID: "sys-1-0/200-3", LSN: 0x180, Transactional: true, XID: 7, CommitTime: time.Unix(1700000000, 123456000), Commit: 0x200, Change: &c}
}

func TestChangesAreWritten(t *testing.T) {
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: `t"1`, Columns: []decoder.Column{{Name: "id", Key: true, Type: 23}, {Name: "note", Type: 25}}}
	const head = `{"schema":"public","table":"t\"1","op":"`
	const tail = `,"lsn":"0/180","xid":7,"commit_time":"2023-11-14T22:13:20.123456Z",`
	for _, c := range []struct {
		change decoder.Change
		want   string
	}{
		{decoder.Change{Op: decoder.OpInsert, New: tuple("1", "null")}, head + `insert"` + tail + `"before":null,"after":{"id":1,"note":null}}`},
		{decoder.Change{Op: decoder.OpUpdate, New: tuple("1", "x")}, head + `update"` + tail + `"before":null,"after":{"id":1,"note":"x"}}`},
		{decoder.Change{Op: decoder.OpUpdate, New: tuple("1", "unchanged")}, head + `update"` + tail + `"before":null,"after":{"id":1},"unchanged":["note"]}`},
		{decoder.Change{Op: decoder.OpUpdate, Old: tuple("1", "null"), KeyOnly: true, New: tuple("2", "unchanged")}, head + `update"` + tail + `"before":{"id":1},"after":{"id":2},"unchanged":["note"]}`},
		{decoder.Change{Op: decoder.OpUpdate, Old: tuple("1", "old"), New: tuple("1", "unchanged")}, head + `update"` + tail + `"before":{"id":1,"note":"old"},"after":{"id":1,"note":"old"}}`},
		{decoder.Change{Op: decoder.OpDelete, Old: tuple("1", "null"), KeyOnly: true}, head + `delete"` + tail + `"before":{"id":1},"after":null}`},
		{decoder.Change{Op: decoder.OpTruncate, Cascade: true}, head + `truncate"` + tail + `"cascade":true,"restart_identity":false,"before":null,"after":null}`},
	} {
		c.change.Relation = rel
		r := NewRouter(NewTypes(nil), Origin{}, time.Now)
		if err := r.Use(Version{Routes: []Route{route(5, "{table}.{op}")}}); err != nil {
			t.Fatal(err)
		}
		out, err := r.Messages(t.Context(), messageOf(c.change))
		if err != nil || len(out) != 1 {
			t.Fatalf("%d messages, %v", len(out), err)
		}
		e, err := decoder.ParseEnvelope(out[0].Content)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Body) != c.want || !json.Valid(e.Body) {
			t.Errorf("got  %s\nwant %s", e.Body, c.want)
		}
		if e.Kind != decoder.KindPublish || e.BrokerID != 1 || e.Exchange != "cdc" || e.ContentType != "application/json" {
			t.Errorf("%+v", e)
		}
		if m := out[0]; m.ID != "sys-1-0/200-3-5" || m.Change != nil || m.Prefix != decoder.Prefix || m.Commit != 0x200 {
			t.Errorf("%+v", m)
		}
	}
}

func TestEachRouteThatMatchesHasItsMessage(t *testing.T) {
	inserts, elsewhere := route(2, "inserts"), route(3, "elsewhere")
	inserts.Operations, elsewhere.Schema = []string{"insert"}, "other"
	r := NewRouter(NewTypes(nil), Origin{}, time.Now)
	if err := r.Use(Version{Routes: []Route{route(1, "all"), inserts, elsewhere}}); err != nil {
		t.Fatal(err)
	}
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: "t"}
	for op, want := range map[decoder.Op][]string{decoder.OpInsert: {"all", "inserts"}, decoder.OpDelete: {"all"}} {
		c := decoder.Change{Op: op, Relation: rel, New: tuple()}
		if op == decoder.OpDelete {
			c.Old, c.New = tuple(), nil
		}
		out, err := r.Messages(t.Context(), messageOf(c))
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, m := range out {
			e, err := decoder.ParseEnvelope(m.Content)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, e.RoutingKey)
		}
		if !slices.Equal(keys, want) {
			t.Errorf("%s goes to %q, want %q", Operation(op), keys, want)
		}
	}
}

// A consumer of one key's messages must be told that its row is gone. What the old row does not know is taken from the new one.
func TestDeletionOfAnOldKeyGoesWhereTheRowWas(t *testing.T) {
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: "t", Columns: []decoder.Column{{Name: "id", Key: true, Type: 23}, {Name: "note", Type: 25}}}
	change := decoder.Change{Op: decoder.OpUpdate, Relation: rel, Old: tuple("1", "null"), KeyOnly: true, New: tuple("2", "new")}
	for _, c := range []struct {
		format Format
		want   []string
	}{
		{FormatDebezium, []string{"update.1.new", "update.2.new"}},
		{FormatJSON, []string{"update.2.new"}},
	} {
		r := route(1, "{op}.{column.id}.{column.note}")
		r.Format = c.format
		var keys []string
		for _, m := range written(t, r, messageOf(change)) {
			e, err := decoder.ParseEnvelope(m.Content)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, e.RoutingKey)
		}
		if !slices.Equal(keys, c.want) {
			t.Errorf("%s: keys %q, want %q", c.format, keys, c.want)
		}
	}
}

// The daemon's own writing must not make it write more.
func TestOurOwnTablesAreNeverRouted(t *testing.T) {
	r := NewRouter(NewTypes(nil), Origin{}, time.Now)
	all := route(1, "k")
	all.Schema = "*"
	if err := r.Use(Version{Routes: []Route{all}}); err != nil {
		t.Fatal(err)
	}
	rel := &decoder.Relation{OID: 1, Schema: "amqp", Name: "dead_letter"}
	out, err := r.Messages(t.Context(), messageOf(decoder.Change{Op: decoder.OpInsert, Relation: rel, New: tuple()}))
	if err != nil || len(out) != 0 {
		t.Errorf("%d messages, %v", len(out), err)
	}
}

func TestTypesAreAskedForOnceUntilTheTableChanges(t *testing.T) {
	asked, failure := 0, errors.New("no database")
	fail := true
	r := NewRouter(NewTypes(func(context.Context, uint32) (*Description, error) {
		if fail {
			return nil, failure
		}
		asked++
		return &Description{Kind: 'e'}, nil
	}), Origin{}, time.Now)
	if err := r.Use(Version{Routes: []Route{route(1, "k")}}); err != nil {
		t.Fatal(err)
	}
	insert := func() error {
		rel := &decoder.Relation{OID: 1, Schema: "public", Name: "t", Columns: []decoder.Column{{Name: "mood", Type: 60000}}}
		var err error
		for range 3 {
			_, e := r.Messages(t.Context(), messageOf(decoder.Change{Op: decoder.OpInsert, Relation: rel, New: tuple("sad")}))
			err = errors.Join(err, e)
		}
		return err
	}
	if err := insert(); !errors.Is(err, failure) {
		t.Errorf("the error of asking became %v", err)
	}
	fail = false
	for want := 1; want <= 2; want++ { // the second time the table is described anew
		if err := insert(); err != nil || asked != want {
			t.Errorf("asked %d times, want %d, %v", asked, want, err)
		}
	}
}

// A composite type is altered without its table being described anew.
func TestCompositeTypesAreAskedForAgain(t *testing.T) {
	now := time.Unix(1700000000, 0)
	pair := []Attribute{{"n", 23, -1}}
	asked := 0
	var failure error
	r := NewRouter(NewTypes(func(_ context.Context, oid uint32) (*Description, error) {
		asked++
		switch {
		case failure != nil:
			return nil, failure
		case oid == 60001:
			return &Description{Elem: 60002, Kind: 'b', Delimiter: ','}, nil
		case pair == nil:
			return nil, nil
		}
		return &Description{Kind: 'c', Attributes: pair}, nil
	}), Origin{}, func() time.Time { return now })
	if err := r.Use(Version{Routes: []Route{route(1, "k"), route(2, "k")}}); err != nil {
		t.Fatal(err)
	}
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: "t", Columns: []decoder.Column{{Name: "c", Type: 60001}}}
	for i, c := range []struct {
		change func()
		text   string
		want   string
		asks   int
	}{
		{nil, `{(1)}`, `[{"n":1}]`, 2},
		{func() { pair = []Attribute{{"n", 23, -1}, {"m", 23, -1}} }, `{"(1,2)"}`, `[{"n":1,"m":2}]`, 2},
		// A row of before the change: asking once more helps nobody, and so not again for a while.
		{nil, `{(1)}`, `["(1)"]`, 2},
		{nil, `{(1)}`, `["(1)"]`, 0},
		{nil, `{"(1,2)"}`, `[{"n":1,"m":2}]`, 0},
		{func() { now = now.Add(reaskAfter) }, `{(1)}`, `["(1)"]`, 2},
		// Names can be others although the text fits.
		{func() { pair = []Attribute{{"a", 23, -1}, {"b", 23, -1}} }, `{"(1,2)"}`, `[{"n":1,"m":2}]`, 0},
		{func() { now = now.Add(refreshAfter) }, `{"(1,2)"}`, `[{"a":1,"b":2}]`, 2},
		// What cannot be asked for at the moment stays as it is.
		{func() { now, failure = now.Add(refreshAfter), errors.New("no database") }, `{"(1,2)"}`, `[{"a":1,"b":2}]`, 1},
		{nil, `{"(1,2,3)"}`, `["(1,2,3)"]`, 1},
		// An attribute has another type.
		{func() { now, failure, pair = now.Add(reaskAfter), nil, []Attribute{{"a", 25, -1}, {"b", 23, -1}} }, `{"(1,2)"}`, `[{"a":1,"b":2}]`, 0},
		{func() { now = now.Add(refreshAfter) }, `{"(1,2)"}`, `[{"a":"1","b":2}]`, 2},
		// It is dropped, and there is one again.
		{func() { now, pair = now.Add(refreshAfter), nil }, `{"(x,2)"}`, `["(x,2)"]`, 2},
		{func() { now, pair = now.Add(refreshAfter), []Attribute{{"z", 25, -1}} }, `{(x)}`, `[{"z":"x"}]`, 2},
	} {
		if c.change != nil {
			c.change()
		}
		asked = 0
		text := []byte{'t', 0, 0, 0, byte(len(c.text))}
		out, err := r.Messages(t.Context(), messageOf(decoder.Change{Op: decoder.OpInsert, Relation: rel, New: append(text, c.text...)}))
		if err != nil || len(out) != 2 {
			t.Fatalf("%d messages, %v", len(out), err)
		}
		for _, m := range out {
			e, err := decoder.ParseEnvelope(m.Content)
			if err != nil {
				t.Fatal(err)
			}
			var body struct{ After struct{ C json.RawMessage } }
			if err := json.Unmarshal(e.Body, &body); err != nil || string(body.After.C) != c.want {
				t.Errorf("%d: %s became %s, want %s, %v", i, c.text, body.After.C, c.want, err)
			}
		}
		if asked != c.asks {
			t.Errorf("%d: %s: asked %d times, want %d", i, c.text, asked, c.asks)
		}
	}
}
