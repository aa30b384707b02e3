package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// madeType is a type that a test has made: one of PostgreSQL's, or an array, a composite type or a domain made of others.
type madeType struct {
	sql    string
	kind   string // array, composite, domain, else its name
	of     *madeType
	fields []*madeType
	names  []string
}

// bare is the type without domains.
func (m *madeType) bare() *madeType {
	for m.kind == "domain" {
		m = m.of
	}
	return m
}

// flat tells whether arrays of the type can have more dimensions and still be told from arrays in arrays.
func (m *madeType) flat() bool {
	kind := m.bare().kind
	return kind != "array" && kind != "json" && kind != "jsonb"
}

// typeMaker makes types and values of them at random.
type typeMaker struct {
	r      *rand.Rand
	ddl    []string
	values map[string][]string // expressions, by PostgreSQL's types
	basic  []string            // the types that values has
}

func newTypeMaker(r *rand.Rand, version int) *typeMaker {
	const stamp = `timestamp '2000-01-01' + make_interval(days => ((random() - 0.5) * 1e6)::int, secs => random() * 86400)`
	const numeric = `((random() - 0.5) * 1e15)::numeric * 10::numeric ^ ((random() - 0.5) * 40)::int`
	t := &typeMaker{r: r, values: map[string][]string{
		"smallint": {`((random() - 0.5) * 65534)::int`, "-32768"}, "integer": {`((random() - 0.5) * 4e9)::bigint`, "2147483647"},
		"bigint": {`((random() - 0.5) * 1.8e19)::numeric::bigint`, "'-9223372036854775808'"}, "oid": {"0", "4294967295"},
		"real":             {`(random() - 0.5) * 10 ^ ((random() - 0.5) * 60)`, "'NaN'", "'Infinity'", "'-Infinity'", "'-0'"},
		"double precision": {`(random() - 0.5) * 10 ^ ((random() - 0.5) * 500)`, "'NaN'", "'Infinity'", "'-Infinity'", "1e300"},
		"numeric":          {numeric, numeric, "'NaN'", "'Infinity'", "'-Infinity'", "0.10"}, "numeric(12,3)": {"(random() * 1e6)::numeric", "'NaN'"},
		"boolean": {"random() > 0.5"}, "text": {"public.any_text()", "''", "'NULL'"}, "varchar(10)": {"left(public.any_text(), 10)"},
		"char(5)": {"left(public.any_text(), 5)"}, "name": {"left(public.any_text(), 15)"},
		"bytea": {`decode(md5(random()::text), 'hex')`, `''`}, "date": {`date '2000-01-01' + ((random() - 0.5) * 1.2e6)::int`, "'infinity'", "'5874897-12-31'", "'4713-01-01 BC'"},
		"time": {"(" + stamp + ")::time", "'24:00'"}, "timetz": {"((" + stamp + ") at time zone 'UTC')::timetz", "'12:00:00.5-05:30'"},
		"timestamp":   {stamp, "'-infinity'", "'294276-12-31 23:59:59.999999'", "'0044-03-15 01:02:03 BC'"},
		"timestamptz": {"(" + stamp + ") at time zone 'UTC'", "'infinity'", "'0044-03-15 01:02:03+00 BC'"}, "timestamp(3)": {stamp},
		"interval": {`make_interval(months => ((random() - 0.5) * 1e4)::int, days => ((random() - 0.5) * 1e4)::int, secs => (random() - 0.5) * 1e9)`, "'178000000 years'"},
		"uuid":     {"md5(random()::text)::uuid"}, "inet": {"'::'::inet + (random() * 1e18)::bigint", "'10.0.0.1/8'"}, "money": {"'12.34'::money"},
		"json":   {`json_build_object(public.any_text(), public.any_text(), 'n', random(), 'a', array[null, public.any_text()])`, `'[1.50, "a",  {}]'`, `'"x"'`},
		"jsonb":  {`jsonb_build_object(public.any_text(), public.any_text(), 'n', random())`, "'[]'", "'1'"},
		"varbit": {"((random() * 1e9)::int::bit(32))::varbit", "B''"}, "bit(3)": {"B'101'"},
		"int4range": {"int4range((random() * 10)::int, 10 + (random() * 10)::int)", "'empty'"}, "int4multirange": {"'{[1,3),[5,)}'", "'{}'"},
		"tstzrange": {"tstzrange('2026-01-02 03:04:05+00', null)"}, "point": {"point(random() * 1e6, random() * -1e-6)"}, "box": {"box(point(random(), 1), point(0, 0))"},
		"row_mood": {"'sad'", "'very happy'"}, "hstore": {"hstore(array[public.any_text() || 'k', 'b'], array[public.any_text(), null])", "''"},
	}}
	if version >= 17 {
		t.values["interval"] = append(t.values["interval"], "'infinity'", "'-infinity'")
	}
	t.basic = slices.Sorted(maps.Keys(t.values))
	return t
}

func (g *typeMaker) base(name string) *madeType { return &madeType{sql: name, kind: name} }

func (g *typeMaker) array(of *madeType) *madeType {
	if of.kind == "array" { // the type of an array says nothing of its dimensions
		return of
	}
	return &madeType{sql: of.sql + "[]", kind: "array", of: of}
}

func (g *typeMaker) domain(of *madeType) *madeType {
	m := &madeType{sql: fmt.Sprintf("public.made_%d", len(g.ddl)), kind: "domain", of: of}
	g.ddl = append(g.ddl, fmt.Sprintf("create domain %s as %s", m.sql, of.sql))
	return m
}

func (g *typeMaker) composite(fields ...*madeType) *madeType {
	m := &madeType{sql: fmt.Sprintf("public.made_%d", len(g.ddl)), kind: "composite", fields: fields}
	var list []string
	for i, f := range fields {
		m.names = append(m.names, []string{"a", `b "c"`, "ü.{}", "D,(", "n"}[i%5]+fmt.Sprint(i))
		list = append(list, fmt.Sprintf(`"%s" %s`, strings.ReplaceAll(m.names[i], `"`, `""`), f.sql))
	}
	g.ddl = append(g.ddl, fmt.Sprintf("create type %s as (%s)", m.sql, strings.Join(list, ", ")))
	return m
}

// random makes a type of types in types, so deep.
func (g *typeMaker) random(depth int) *madeType {
	if depth == 0 {
		return g.base(g.basic[g.r.IntN(len(g.basic))])
	}
	switch g.r.IntN(4) {
	case 0:
		return g.array(g.random(depth - 1))
	case 1:
		return g.domain(g.random(depth - 1))
	case 2:
		fields := make([]*madeType, 1+g.r.IntN(4))
		for i := range fields {
			fields[i] = g.random(depth - 1)
		}
		return g.composite(fields...)
	}
	return g.random(depth - 1)
}

// value is an expression of a type; it may be NULL.
func (g *typeMaker) value(m *madeType) string {
	if g.r.IntN(7) == 0 {
		return "null::" + m.sql
	}
	switch m.kind {
	case "array":
		lengths := []int{g.r.IntN(4)}
		for m.of.flat() && len(lengths) < 3 && lengths[0] > 0 && g.r.IntN(3) == 0 {
			lengths = append(lengths, 1+g.r.IntN(2))
		}
		return "(" + g.elements(m.of, lengths) + ")::" + m.sql
	case "domain":
		return "(" + g.value(m.of) + ")::" + m.sql
	case "composite":
		var fields []string
		for _, f := range m.fields {
			fields = append(fields, g.value(f))
		}
		return "row(" + strings.Join(fields, ", ") + ")::" + m.sql
	}
	all := g.values[m.kind]
	return "(" + all[g.r.IntN(len(all))] + ")::" + m.sql
}

func (g *typeMaker) elements(of *madeType, lengths []int) string {
	var all []string
	for range lengths[0] {
		if len(lengths) > 1 {
			all = append(all, g.elements(of, lengths[1:]))
		} else {
			all = append(all, g.value(of))
		}
	}
	if len(all) == 0 {
		return "'{}'"
	}
	return "array[" + strings.Join(all, ", ") + "]"
}

// ours is what a message has where to_json writes v.
func (m *madeType) ours(v any, numbers bool) any {
	text, _ := v.(string)
	switch {
	case v == nil:
		return nil
	case m.kind == "domain":
		return m.of.ours(v, numbers)
	case m.kind == "array":
		out := []any{}
		for _, e := range v.([]any) {
			if inner, isArray := e.([]any); isArray && m.of.flat() {
				out = append(out, m.ours(inner, numbers))
			} else {
				out = append(out, m.of.ours(e, numbers))
			}
		}
		return out
	case m.kind == "composite":
		out := map[string]any{}
		for i, f := range m.fields {
			out[m.names[i]] = f.ours(v.(map[string]any)[m.names[i]], numbers)
		}
		return out
	case m.kind == "oid": // which to_json takes for a text
		return json.Number(text)
	case strings.HasPrefix(m.kind, "numeric") && !numbers:
		return fmt.Sprint(v)
	case m.kind == "bytea" && numbers:
		return strings.TrimPrefix(text, `\x`)
	case m.kind == "bytea":
		raw, _ := hex.DecodeString(strings.TrimPrefix(text, `\x`))
		return base64.StdEncoding.EncodeToString(raw)
	case strings.HasPrefix(m.kind, "timestamp") && strings.HasSuffix(text, " BC"): // as PostgreSQL writes it
		return strings.Replace(strings.Replace(text, "T", " ", 1), "+00:00", "+00", 1)
	case m.kind == "timestamptz" && strings.HasSuffix(text, "+00:00"):
		return strings.TrimSuffix(text, "+00:00") + "Z"
	}
	return v
}

// TestValuesOfMadeTypesAreThoseOfPostgreSQL: each type of PostgreSQL by itself and in arrays, and types in types at random, against
// what to_json makes of the row.
func TestValuesOfMadeTypesAreThoseOfPostgreSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "texts", "numbers")
	g := newTypeMaker(newSeed(t), w.postgres.Version())
	var types []*madeType
	for _, name := range g.basic {
		types = append(types, g.base(name), g.array(g.base(name)))
	}
	pair := g.composite(g.base("json"), g.array(g.base("numeric")), g.base("hstore"))
	types = append(types, g.composite(pair, g.array(pair)), g.domain(g.array(g.base("text"))), g.domain(pair), g.array(g.domain(pair)), g.array(g.domain(g.array(g.base("date")))))
	for range 40 {
		types = append(types, g.random(3))
	}
	var columns []string
	for i, m := range types {
		columns = append(columns, fmt.Sprintf("c%d %s", i, m.sql))
	}
	w.script(`create extension hstore`, `create type row_mood as enum ('sad', 'very happy')`, anyText)
	w.script(g.ddl...)
	w.script(
		`create table public.made (id serial primary key, `+strings.Join(columns, ", ")+`)`,
		`select amqp.route_table('public.made', 1, '', 'texts')`,
		`select amqp.route_table('public.made', 1, '', 'numbers', numeric_as => 'number', bytea_as => 'hex')`,
	)
	w.start()
	const rows = 30
	conn := w.connect()
	run(t, conn, fmt.Sprintf(`select setseed(%v)`, g.r.Float64()))
	for range rows {
		var values []string
		for _, m := range types {
			values = append(values, g.value(m))
		}
		run(t, conn, fmt.Sprintf(`insert into public.made select nextval('public.made_id_seq'), %s`, strings.Join(values, ", ")))
	}
	for _, setting := range []string{`timezone = 'UTC'`, `intervalstyle = 'iso_8601'`, `datestyle = 'ISO'`, `bytea_output = 'hex'`} {
		run(t, conn, `set `+setting)
	}
	want := map[string]map[string]any{}
	found, err := conn.Query(withDeadline(t, sqlLimit), `select to_json(m)::text from public.made m`)
	if err != nil {
		t.Fatal(err)
	}
	for found.Next() {
		var text string
		if err := found.Scan(&text); err != nil {
			t.Fatal(err)
		}
		row := exact(t, []byte(text))
		want[fmt.Sprint(row["id"])] = row
	}
	w.waitDelivered()
	for queue, numbers := range map[string]bool{"texts": false, "numbers": true} {
		got := w.take(1, queue)
		if len(got) != rows || len(want) != rows {
			t.Fatalf("%d messages, %d rows", len(got), len(want))
		}
		for _, m := range got {
			after, _ := exact(t, m.Body)["after"].(map[string]any)
			row := want[fmt.Sprint(after["id"])]
			for i, of := range types {
				name := fmt.Sprintf("c%d", i)
				if diff := cmp.Diff(of.ours(row[name], numbers), after[name]); diff != "" {
					t.Errorf("%s, %s %s:\n%s", queue, name, of.sql, diff)
				}
			}
		}
	}
	if t.Failed() {
		t.Log(strings.Join(g.ddl, "\n"))
	}
}

// exact reads an object, and keeps every digit of its numbers.
func exact(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var out map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}
