package rows

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

// TestDebeziumEventsAreThoseOfItsDocumentation: values and all, but for the differences that are listed here. The events are those
// of the chapter "Data change events" about its connector for PostgreSQL, of "Primary key updates" there, which shows none
// and says that they are as usual, and of "Incremental snapshots".
func TestDebeziumEventsAreThoseOfItsDocumentation(t *testing.T) {
	// Fields that the examples do not have, and the connector has: it writes null for what is not there, and a text for snapshot.
	usual := []string{
		`source.sequence: nothing, here "[\"24023119\",\"24023128\"]"`, `source.snapshot: false, here "false"`, `transaction: nothing, here null`,
	}
	const (
		source = `"source": {"version": "3.3.1.Final", "connector": "postgresql", "name": "PostgreSQL_server", "ts_ms": 1559033904863,
			"ts_us": 1559033904863123, "ts_ns": 1559033904863123000, "snapshot": false, "db": "postgres", "schema": "public",
			"table": "customers", "txId": 556, "lsn": 24023128, "xmin": null}`
		times = `"ts_ms": 1465584025523, "ts_us": 1465584025523514, "ts_ns": 1465584025523514964`
		anne  = `"first_name": "Anne", "last_name": "Kretchmar", "email": "annek@noanswer.org"`
	)
	customers := &decoder.Relation{OID: 1, Schema: "public", Name: "customers", Columns: []decoder.Column{
		{Name: "id", Key: true, Type: 23}, {Name: "first_name", Type: 1043}, {Name: "last_name", Type: 1043}, {Name: "email", Type: 1043},
	}}
	row := func(id, name string) decoder.Tuple { return tuple(id, name, "Kretchmar", "annek@noanswer.org") }
	key := func(id string) decoder.Tuple { return tuple(id, "null", "null", "null") }
	for _, c := range []struct {
		name        string
		change      decoder.Change
		documented  []string
		differences []string
	}{
		{
			"create",
			decoder.Change{Op: decoder.OpInsert, New: row("1", "Anne")},
			[]string{`{"before": null, "after": {"id": 1, ` + anne + `}, ` + strings.Replace(source, `"schema"`, `"sequence": "[\"24023119\",\"24023128\"]", "schema"`, 1) + `, "op": "c", ` + times + `}`},
			usual[1:],
		},
		{
			"update",
			decoder.Change{Op: decoder.OpUpdate, New: row("1", "Anne Marie")},
			[]string{`{"before": {"id": 1}, "after": {"id": 1, ` + strings.Replace(anne, "Anne", "Anne Marie", 1) + `}, ` + source + `, "op": "u", ` + times + `}`},
			// PostgreSQL sends the old key only if it has changed, or is stored apart.
			append([]string{`before: map[id:1], here null`}, usual...),
		},
		{
			"update under REPLICA IDENTITY FULL",
			decoder.Change{Op: decoder.OpUpdate, Old: row("1", "Anne"), New: row("1", "Anne Marie")},
			[]string{`{"before": {"id": 1, ` + anne + `}, "after": {"id": 1, ` + strings.Replace(anne, "Anne", "Anne Marie", 1) + `}, ` + source + `, "op": "u", ` + times + `}`},
			usual,
		},
		{
			"primary key update",
			decoder.Change{Op: decoder.OpUpdate, Old: key("1"), KeyOnly: true, New: row("2", "Anne")},
			[]string{
				`{"before": {"id": 1}, "after": null, ` + source + `, "op": "d", ` + times + `}`,
				`{"before": null, "after": {"id": 2, ` + anne + `}, ` + source + `, "op": "c", ` + times + `}`,
			},
			append(slices.Clone(usual), usual...),
		},
		{
			"delete",
			decoder.Change{Op: decoder.OpDelete, Old: key("1"), KeyOnly: true},
			[]string{`{"before": {"id": 1}, "after": null, ` + source + `, "op": "d", ` + times + `}`},
			usual,
		},
		{
			"truncate",
			decoder.Change{Op: decoder.OpTruncate},
			[]string{`{` + source + `, "op": "t", ` + times + `}`},
			append([]string{`after: nothing, here null`, `before: nothing, here null`}, usual...),
		},
		{
			"read, of which the documentation leaves out the source",
			decoder.Change{Op: decoder.OpRead, New: row("1", "Anne")},
			[]string{`{"before": null, "after": {"id": 1, ` + anne + `}, ` + strings.Replace(source, "false", `"incremental"`, 1) + `, "op": "r", ` + times + `, "transaction": null}`},
			usual[:1],
		},
	} {
		r := NewRouter(NewTypes(nil), Origin{Version: "3.3.1.Final", Name: "PostgreSQL_server", Database: "postgres"},
			func() time.Time { return time.Unix(0, 1465584025523514964) })
		if err := r.Use(Version{Routes: []Route{formatsOf()[FormatDebezium]}}); err != nil {
			t.Fatal(err)
		}
		c.change.Relation = customers
		m := messageOf(c.change)
		m.LSN, m.Commit, m.XID, m.CommitTime = 24023128, 24023119, 556, time.UnixMicro(1559033904863123)
		out, err := r.Messages(t.Context(), m)
		if err != nil || len(out) != len(c.documented) {
			t.Fatalf("%s: %d events, %v", c.name, len(out), err)
		}
		var differences []string
		for i := range out {
			e, err := decoder.ParseEnvelope(out[i].Content)
			if err != nil {
				t.Fatal(err)
			}
			differences = append(differences, compareJSON("", object(t, []byte(c.documented[i])), object(t, e.Body))...)
		}
		if !slices.Equal(differences, c.differences) {
			t.Errorf("%s differs by\n%s\nlisted are\n%s", c.name, strings.Join(differences, "\n"), strings.Join(c.differences, "\n"))
		}
	}
}

// object reads an object, and keeps every digit of its numbers.
func object(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var out map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

// compareJSON lists where two objects differ, in the order of the fields' names.
func compareJSON(path string, documented, here map[string]any) (out []string) {
	names := map[string]bool{}
	for name := range documented {
		names[name] = true
	}
	for name := range here {
		names[name] = true
	}
	show := func(object map[string]any, name string) string {
		v, there := object[name]
		switch text, isText := v.(string); {
		case !there:
			return "nothing"
		case v == nil:
			return "null"
		case isText:
			return fmt.Sprintf("%q", text)
		}
		return fmt.Sprint(v)
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		inner, isObject := documented[name].(map[string]any)
		other, isObjectHere := here[name].(map[string]any)
		switch {
		case isObject && isObjectHere:
			out = append(out, compareJSON(path+name+".", inner, other)...)
		case show(documented, name) != show(here, name):
			out = append(out, fmt.Sprintf("%s%s: %s, here %s", path, name, show(documented, name), show(here, name)))
		}
	}
	return out
}
