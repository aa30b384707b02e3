package rows

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgamqp/pgamqp/decoder"
)

// FuzzRowFrames gives a table's description and a change of a row, as the server sends them, to the decoder and the
// router: what these let through is one message a route, which can be read again and whose body is JSON.
func FuzzRowFrames(f *testing.F) {
	seed := func(relation, change string) {
		frames := make([][]byte, 2)
		for i, text := range []string{relation, change} {
			var err error
			if frames[i], err = hex.DecodeString(strings.ReplaceAll(text, " ", "")); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(frames[0], frames[1])
	}
	const table = "52 00004000 7075626c696300 7400 64 0003" +
		"01 696400 00000017 ffffffff  00 6e6f746500 00000019 ffffffff  00 7061697200 0000c355 ffffffff"
	seed(table, "49 00004000 4e 0003 74 00000001 31 6e 74 00000005 28312c2c29")
	seed(table, "55 00004000 4e 0003 74 00000001 31 75 6e")
	seed(table, "55 00004000 4b 0003 74 00000001 31 6e 6e 4e 0003 74 00000001 32 74 00000001 61 6e")
	seed(table, "55 00004000 4f 0003 74 00000001 31 74 00000001 61 6e 4e 0003 74 00000001 31 75 6e")
	seed(table, "44 00004000 4b 0003 74 00000001 31 6e 6e")
	seed(table, "54 00000001 03 00004000")
	begin := append([]byte{'B'}, make([]byte, 20)...)
	begin[8] = 1
	f.Fuzz(func(t *testing.T, relation, change []byte) {
		d := decoder.New(decoder.Source{SystemID: "7", Timeline: 1})
		if _, err := d.Decode(begin, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode(relation, 1); err != nil {
			return
		}
		event, err := d.Decode(change, 2)
		if err != nil {
			return
		}
		var changed []decoder.Message
		switch e := event.(type) {
		case *decoder.Message:
			changed = append(changed, *e)
		case *decoder.Truncate:
			changed = e.Messages
		}
		for format, r := range formatsOf() {
			r.Schema, r.RoutingKey = "*", "{schema}.{table}.{op}.{column.id}"
			router := NewRouter(NewTypes(func(_ context.Context, oid uint32) (*Description, error) { return described()[oid], nil }),
				Origin{Version: "1", Name: "s", Database: "d"}, time.Now)
			if err := router.Use(Version{Routes: []Route{r}}); err != nil {
				t.Fatal(err)
			}
			for i := range changed {
				if changed[i].Change != nil {
					checkRouted(t, router, format, &changed[i])
				}
			}
		}
	})
}

// checkRouted checks what a change becomes.
func checkRouted(t *testing.T, router *Router, format Format, m *decoder.Message) {
	t.Helper()
	out, err := router.Messages(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if ours := m.Change.Relation.Schema == ourSchema; ours != (len(out) == 0) || len(out) > 2 {
		t.Fatalf("%s: %d messages", format, len(out))
	}
	for i := range out {
		e, err := decoder.ParseEnvelope(out[i].Content)
		if err != nil {
			// A name of a table that is not UTF-8, as a database without an encoding has it, makes a dead letter.
			if !utf8.ValidString(m.Change.Relation.Schema+m.Change.Relation.Name) || !utf8.Valid(m.Change.New) || !utf8.Valid(m.Change.Old) {
				continue
			}
			t.Fatalf("%s: %v\n%q", format, err, out[i].Content)
		}
		if !json.Valid(e.Body) && !hasJSON(m.Change.Relation) || e.Headers != "" && !json.Valid([]byte(e.Headers)) || len(e.RoutingKey) > maxKey {
			t.Fatalf("%s: key %q, headers %s, body\n%s", format, e.RoutingKey, e.Headers, e.Body)
		}
	}
}

// hasJSON tells whether a table has a column of JSON, which is written as the server says: it has checked it.
func hasJSON(rel *decoder.Relation) bool {
	return slices.ContainsFunc(rel.Columns, func(c decoder.Column) bool { return slices.Contains([]uint32{114, 199, 3802, 3807}, c.Type) })
}

// FuzzRouteRow reads a row of amqp.route as a newer or a broken installation may have written it: a route is refused, or makes
// keys that AMQP has room for.
func FuzzRouteRow(f *testing.F) {
	f.Add("{schema}.{table}.{op}.{column.id}", "public", "*", "orders", "a.b*c#d%e")
	f.Add("{prefix}", "*x*", "axb", "a*", "")
	f.Add("a}b{", "**", "", "*a", "\x00\xff")
	f.Add("{column.}{", "a*b*c", "abc", "", strings.Repeat("ü", 200))
	f.Fuzz(func(t *testing.T, key, pattern, name, table, value string) {
		r := route(1, key)
		r.Schema, r.Table = pattern, table
		if err := r.prepare(); err != nil {
			return
		}
		if got := r.key.fill(func(string) string { return value }); len(got) > maxKey {
			t.Fatalf("%d bytes of key: %q", len(got), got)
		}
		if !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return
		}
		model := regexp.MustCompile(`(?s)^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `$`)
		if got := glob(pattern, name); got != model.MatchString(name) {
			t.Fatalf("glob(%q, %q) is %t", pattern, name, got)
		}
	})
}

// FuzzDebeziumValue: whatever the text, the outcome is JSON, in the form that Debezium has, too.
func FuzzDebeziumValue(f *testing.F) {
	for _, s := range []string{"2026-01-02", "2026-01-02 03:04:05.5+05:30 BC", "23:59:60.999999-12", "P1Y2M-3DT4H-5.6S", "0101", "infinity", `(1,"a ""b""",{1})`, `"a"=>NULL`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, oid := range []uint32{16, 17, 25, 114, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1182, 1561, 3807, 50005, 50006, 50007} {
			for _, modifier := range []int32{-1, 1, math.MaxInt32} {
				got := (Encoding{debezium: true}).appendValue(nil, known(t, oid).withModifier(modifier), []byte(text))
				if !json.Valid(got) {
					t.Fatalf("type %d: %q became %s", oid, text, got)
				}
			}
		}
	})
}
