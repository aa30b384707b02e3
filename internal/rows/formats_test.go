package rows

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

var update = flag.Bool("update", false, "write the golden files anew")

// customers is the table of the examples in Debezium's documentation, with a value of its own
// form for each of the types that have one.
func customers() *decoder.Relation {
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: "customers", Columns: []decoder.Column{{Name: "id", Key: true, Type: 23, Modifier: -1}}}
	for _, c := range []struct {
		name     string
		oid      uint32
		modifier int32
	}{
		{"first_name", 1043, 259},
		{"email", 25, -1},
		{"price", 1700, 655366},
		{"born", 1082, -1},
		{"at", 1114, -1},
		{"at_ms", 1114, 3},
		{"tz", 1184, -1},
		{"clock", 1083, -1},
		{"doc", 3802, -1},
		{"bits", 1560, 1},
		{"raw", 17, -1},
		{"tags", 1009, -1},
	} {
		rel.Columns = append(rel.Columns, decoder.Column{Name: c.name, Type: c.oid, Modifier: c.modifier})
	}
	return rel
}

// formatsOf are all formats with their routes.
func formatsOf() map[Format]Route {
	all := map[Format]Route{}
	for i, f := range []Format{FormatJSON, FormatDebezium, FormatCloudEvents, FormatStructured} {
		r := route(int32(i+1), "{schema}.{table}.{op}")
		r.Format = f
		all[f] = r
	}
	return all
}

// routerOf is a Router with one route.
func routerOf(tb testing.TB, r Route) *Router {
	tb.Helper()
	now := time.Unix(1700000001, 234567890)
	router := NewRouter(NewTypes(nil), Origin{Version: "1.0", Name: "pgamqp", Database: "shop"}, func() time.Time { return now })
	if err := router.Use(Version{Routes: []Route{r}}); err != nil {
		tb.Fatal(err)
	}
	return router
}

// written is what a change becomes on a route.
func written(t *testing.T, r Route, m *decoder.Message) []decoder.Message {
	t.Helper()
	out, err := routerOf(t, r).Messages(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFormatsAreWhatTheyWere compares all that is sent with the files in testdata.
func TestFormatsAreWhatTheyWere(t *testing.T) {
	rel := customers()
	row := func(id, email, raw, tags string) decoder.Tuple {
		return tuple(id, "Anne", email, "12.50", "2026-01-02", "2026-01-02 03:04:05.678901", "2026-01-02 03:04:05.678",
			"2026-01-02 03:04:05.5+00", "03:04:05.678901", `{"a": 1}`, "1", raw, tags)
	}
	key := func(id string) decoder.Tuple {
		return tuple(append([]string{id}, slices.Repeat([]string{"null"}, len(rel.Columns)-1)...)...)
	}
	changes := []decoder.Change{
		{Op: decoder.OpInsert, New: row("1001", "annek@noanswer.org", `\x00ff`, `{a,NULL}`)},
		{Op: decoder.OpUpdate, New: row("1001", "null", "unchanged", "unchanged")},
		{Op: decoder.OpUpdate, Old: key("1001"), KeyOnly: true, New: row("1002", "null", "null", "{}")},
		{Op: decoder.OpUpdate, Old: key("1001"), KeyOnly: true, New: row("1001", "null", "null", "{}")},
		{Op: decoder.OpUpdate, Old: row("1001", "old", "null", "null"), New: row("1001", "new", "null", "null")},
		{Op: decoder.OpDelete, Old: key("1001"), KeyOnly: true},
		{Op: decoder.OpTruncate},
		{Op: decoder.OpRead, New: row("1001", "null", "null", "null")},
	}
	for format, r := range formatsOf() {
		var got bytes.Buffer
		for _, c := range changes {
			c.Relation = rel
			for _, m := range written(t, r, messageOf(c)) {
				e, err := decoder.ParseEnvelope(m.Content)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&got, "%s %s %s\n", m.ID, e.RoutingKey, e.ContentType)
				for _, text := range []string{e.Headers, string(e.Body)} {
					if text == "" {
						continue
					}
					if err := json.Indent(&got, []byte(text), "", " "); err != nil {
						t.Fatalf("%s: %v", text, err)
					}
					got.WriteByte('\n')
				}
			}
		}
		file := filepath.Join("testdata", string(format)+".golden")
		if *update {
			if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s differs from %s, which go test ./internal/rows -update writes anew:\n%s", format, file, got.Bytes())
		}
	}
}

func TestDebeziumValues(t *testing.T) {
	for _, c := range []struct {
		oid        uint32
		modifier   int32
		text, want string
	}{
		{1082, -1, "1970-01-01", "0"},
		{1082, -1, "2000-02-29", "11016"},
		{1082, -1, "1969-12-31", "-1"},
		{1082, -1, "0044-03-15 BC", "-735160"},
		{1082, -1, "10000-01-01", "2932897"},
		{1082, -1, "infinity", `"infinity"`},
		{1083, -1, "23:59:59.999999", "86399999999"},
		{1083, 3, "00:00:01.5", "1500"},
		{1083, -1, "24:00:00", "86400000000"},
		{1114, -1, "1970-01-01 00:00:01.5", "1500000"},
		{1114, 0, "1970-01-01 00:00:01", "1000"},
		{1114, -1, "1969-12-31 23:59:59.5", "-500000"},
		{1114, 2, "1969-12-31 23:59:59.99", "-10"},
		{1114, -1, "infinity", "9223372036825200000"},
		{1114, -1, "-infinity", "-9223372036832400000"},
		{1114, -1, "0044-03-15 00:00:00 BC", "-63517824000000000"},
		// As many digits as the column is declared with (DBZ-5996, DBZ-6163).
		{1184, -1, "2026-01-02 03:04:05.5+00", `"2026-01-02T03:04:05.500000Z"`},
		{1184, -1, "2026-01-02 03:04:05+00", `"2026-01-02T03:04:05.000000Z"`},
		{1184, 6, "2026-01-02 03:04:05.123456+00", `"2026-01-02T03:04:05.123456Z"`},
		{1184, 3, "2026-01-02 03:04:05.5+00", `"2026-01-02T03:04:05.500Z"`},
		{1184, 0, "2026-01-02 03:04:05+00", `"2026-01-02T03:04:05Z"`},
		{1184, -1, "0044-03-15 00:00:00+00 BC", `"0044-03-15 00:00:00+00 BC"`},
		{1185, 1, `{"2026-01-02 03:04:05+00"}`, `["2026-01-02T03:04:05.0Z"]`},
		// What does not fit into 64 bits.
		{1114, -1, "294247-01-10 04:00:54.775807", "9223372036854775807"},
		{1114, -1, "294247-01-10 04:00:54.775808", `"294247-01-10 04:00:54.775808"`},
		{1114, -1, "294276-12-31 23:59:59.999999", `"294276-12-31 23:59:59.999999"`},
		{1114, 3, "294276-12-31 23:59:59.999", `"294276-12-31 23:59:59.999"`},
		{1114, -1, "4714-11-24 00:00:00 BC", "-210866803200000000"},
		{1186, -1, "P178000000Y", `"P178000000Y"`},
		{1186, -1, "P-178000000Y", `"P-178000000Y"`},
		{1186, -1, "P292271Y", "9223371309600000000"},
		{1186, -1, "P292271Y1M", `"P292271Y1M"`},
		{1186, -1, "P292271YT1000000H", `"P292271YT1000000H"`},
		{1186, -1, "P-292271YT-1000000H", `"P-292271YT-1000000H"`},
		{1082, -1, "5874897-12-31", "2145042905"},
		{1082, -1, "999999999999999999-12-31", `"999999999999999999-12-31"`},
		{1083, -1, "999999999999999999:00:00", `"999999999999999999:00:00"`},
		{1266, -1, "00:00:00+999999999999", `"00:00:00+999999999999"`},
		// A domain has the modifier that it is declared with.
		{50013, -1, "1970-01-01 00:00:00.002", "2"},
		{50014, -1, `{"1970-01-01 00:00:00.002"}`, "[2]"},
		{50015, -1, `("1970-01-01 00:00:00.002",1)`, `{"at":2,"flag":true}`},
		{1184, -1, "infinity", `"infinity"`},
		{1266, -1, "03:04:05.5+02", `"01:04:05.5Z"`},
		{1266, -1, "23:30:00-05:30", `"05:00:00Z"`},
		{1266, -1, "nonsense", `"nonsense"`},
		{1186, -1, "P1Y2M-3DT4H5M6.7S", "36572706700000"},
		{1186, -1, "PT0S", "0"},
		{1186, -1, "P-1DT-0.5S", "-86400500000"},
		{1186, -1, "infinity", `"infinity"`},
		{3802, -1, `{"a": "b"}`, `"{\"a\": \"b\"}"`},
		{1560, 1, "1", "true"},
		{1560, 9, "100000001", `"AQE="`},
		{1562, 1, "0", `"AA=="`},
		{1115, 3, `{"1970-01-01 00:00:00.002",NULL}`, "[2,null]"},
		{50007, -1, `"k"=>"v"`, `"{\"k\":\"v\"}"`},
	} {
		typ := known(t, c.oid).withModifier(c.modifier)
		if got := string(Encoding{debezium: true}.appendValue(nil, typ, []byte(c.text))); got != c.want {
			t.Errorf("type %d(%d): %s became %s, want %s", c.oid, c.modifier, c.text, got, c.want)
		}
	}
}

// TestDaysAreCounted against the library's calendar.
func TestDaysAreCounted(t *testing.T) {
	at := time.Date(-4712, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 200000 {
		y, m, d := at.Date()
		if got, want := daysSince1970(int64(y), int64(m), int64(d)), floorDiv(at.Unix(), 86400); got != want {
			t.Fatalf("%s is day %d, want %d", at, got, want)
		}
		at = at.AddDate(0, 0, 17)
	}
}

func TestMessagesWithAPrefixAreRouted(t *testing.T) {
	r := Route{ID: 4, BrokerID: 2, Exchange: "x", Prefix: "app.*", Operations: []string{"message"}, RoutingKey: "from.{prefix}", Format: FormatRaw}
	m := decoder.Message{ID: "sys-1-0/200", LSN: 0x200, Prefix: "app.one two#", Content: []byte{0, 1, 2}}
	out := written(t, r, &m)
	if len(out) != 1 {
		t.Fatalf("%d messages", len(out))
	}
	e, err := decoder.ParseEnvelope(out[0].Content)
	if err != nil || e.BrokerID != 2 || e.Exchange != "x" || e.RoutingKey != "from.app.one%20two%23" || !bytes.Equal(e.Body, m.Content) || e.ContentType != "application/octet-stream" {
		t.Errorf("%+v, %v", e, err)
	}
	if out[0].ID != "sys-1-0/200-4" || out[0].Prefix != decoder.Prefix || out[0].LSN != m.LSN {
		t.Errorf("%+v", out[0])
	}
	m.Prefix = "other"
	if out := written(t, r, &m); len(out) != 0 {
		t.Errorf("%d messages of another prefix", len(out))
	}
	r.Format = FormatJSON
	if err := r.prepare(); err == nil {
		t.Error("a format for tables was taken for a prefix")
	}
}
