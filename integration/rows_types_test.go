package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// rowType is a column, with expressions of its type.
type rowType struct {
	name, kind string
	values     []string
}

// rowTypes are columns of all kinds. The JSON of a value, cast back, must be the value.
func rowTypes() []rowType {
	return []rowType{
		{"c_smallint", "smallint", []string{"-32768", "0", "32767"}},
		{"c_bigint", "bigint", []string{"-9223372036854775808", "1", "9223372036854775807"}},
		{"c_oid", "oid", []string{"0", "1", "4294967295"}},
		{"c_real", "real", []string{"'NaN'", "'Infinity'", "1.1", "-1e-30", "3.4e38"}},
		{"c_double", "double precision", []string{"'-Infinity'", "0.1", "1e300", "2.2250738585072014e-308"}},
		{"c_numeric", "numeric", []string{"'NaN'", "0.10", "123456789012345678901234567890.123456789", "-1e-20"}},
		{"c_bool", "boolean", []string{"true", "false"}},
		{"c_text", "text", []string{"''", "'ü € 😀'", `E'quote " backslash \\ newline \n tab \t \x01'`, "'null'"}},
		{"c_varchar", "varchar(10)", []string{"'abc'", "' '"}},
		{"c_bpchar", "char(5)", []string{"'ab'", "''"}},
		{"c_name", "name", []string{"'some_name'"}},
		{"c_bytea", "bytea", []string{"''", `'\x00ff10'`}},
		{"c_date", "date", []string{"'2026-01-02'", "'0044-03-15 BC'", "'infinity'", "'10000-01-01'"}},
		{"c_time", "time", []string{"'00:00'", "'23:59:59.999999'", "'24:00'"}},
		{"c_timetz", "timetz", []string{"'03:04:05+02'", "'12:00-05:30'"}},
		{"c_timestamp", "timestamp", []string{"'2026-01-02 03:04:05.678901'", "'0044-03-15 01:02:03 BC'", "'-infinity'", "'99999-12-31 23:59:59'"}},
		{"c_timestamptz", "timestamptz", []string{"'2026-07-02 03:04:05.6+02'", "'0044-03-15 01:02:03+00 BC'", "'infinity'"}},
		{"c_interval", "interval", []string{"'1 year 2 months -3 days 04:05:06.7'", "'0'", "'-1 day 2 hours'"}},
		{"c_uuid", "uuid", []string{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}},
		{"c_json", "jsonb", []string{`'{"a": [1, "two", null, {"b": 1.50}]}'`, `'"text"'`, "'[]'"}},
		{"c_inet", "inet", []string{"'10.0.0.1/8'", "'::1'"}},
		{"c_money", "money", []string{"'12.34'"}},
		{"c_bit", "varbit", []string{"B'101'", "B''"}},
		{"c_range", "int4range", []string{"'[1,5)'", "'empty'", "'(,3]'"}},
		{"c_point", "point", []string{"'(1.5,-2)'"}},
		{"c_enum", "row_mood", []string{"'sad'", "'very happy'"}},
		{"c_domain", "row_positive", []string{"1", "2147483647"}},
		{"c_ints", "integer[]", []string{"'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'"}},
		{"c_texts", "text[]", []string{`'{a,"b,c","d\"e\\f",NULL,"NULL",""}'`, "array['{x}', ' ']"}},
		{"c_byteas", "bytea[]", []string{`array['\x00ff'::bytea, '']`}},
		{"c_stamps", "timestamptz[]", []string{"array['2026-01-02 03:04:05+00'::timestamptz, null]"}},
		{"c_moods", "row_mood[]", []string{`'{sad,"very happy"}'`}},
		{"c_composite", "row_pair", []string{`row(1, 'a "quoted" \ text, with (all)', '{1,2}')::row_pair`, "row(null, '', null)::row_pair"}},
		{"c_composites", "row_pair[]", []string{"array[row(1, 'x y', '{}')::row_pair, null]"}},
		{"c_hstore", "hstore", []string{`'a=>1, "b c"=>NULL, "d\"e"=>"f\\g"'`, "''"}},
	}
}

// back is SQL that makes the value of a column again out of its JSON, $1.
func back(c rowType) string {
	j := "($1::jsonb -> '" + c.name + "')"
	text := "($1::jsonb ->> '" + c.name + "')"
	elements := func(each, function string) string {
		return fmt.Sprintf("case jsonb_typeof(%s) when 'array' then coalesce((select array_agg(%s order by n) from %s(%s) with ordinality x(e, n)), '{}') end", j, each, function, j)
	}
	const pair = "jsonb_populate_record(null::row_pair, e)"
	of, isArray := strings.CutSuffix(c.kind, "[]")
	switch {
	case c.kind == "jsonb":
		return "nullif(" + j + ", 'null')"
	case c.kind == "bytea":
		return "decode(" + text + ", 'base64')"
	case c.kind == "row_pair":
		return "case jsonb_typeof(" + j + ") when 'object' then " + strings.Replace(pair, ", e)", ", "+j+")", 1) + " end"
	case c.kind == "hstore":
		return "case jsonb_typeof(" + j + ") when 'object' then (select coalesce(hstore(array_agg(key), array_agg(value)), '') from jsonb_each_text(" + j + ")) end"
	case !isArray:
		return text + "::" + c.kind
	case of == "integer": // as text it is a literal but for its brackets
		return "translate(" + text + ", '[]', '{}')::integer[]"
	case of == "bytea":
		return elements("decode(e, 'base64')", "jsonb_array_elements_text")
	case of == "row_pair":
		return elements("case jsonb_typeof(e) when 'object' then "+pair+" end", "jsonb_array_elements")
	}
	return elements("e::"+of, "jsonb_array_elements_text")
}

// TestValuesOfRowsCanBeCastBack, of all types, random ones, and NULL of each.
func TestValuesOfRowsCanBeCastBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.script(
		`create extension hstore`,
		`create type row_mood as enum ('sad', 'very happy')`,
		`create domain row_positive as integer check (value > 0)`,
		`create type row_pair as (n integer, t text, list integer[])`,
	)
	conn := w.connect()
	var columns []string
	for _, c := range rowTypes() {
		columns = append(columns, c.name+" "+c.kind)
	}
	w.script(
		`create table public.kinds (id serial primary key, `+strings.Join(columns, ", ")+`)`,
		`select amqp.route_table('public.kinds', 1, '', 'q')`,
		`insert into public.kinds default values`,
	)
	for _, c := range rowTypes() {
		for _, v := range c.values {
			w.exec(fmt.Sprintf(`insert into public.kinds (%s) values (%s)`, c.name, v))
		}
	}
	w.insertRandomKinds(200)
	d := w.start()
	n := value[int](w, `select count(*)::int from public.kinds`)
	for _, m := range w.consume(1, "q").next(n) {
		var body struct {
			After json.RawMessage
		}
		if err := json.Unmarshal(m.Body, &body); err != nil {
			t.Fatalf("%s: %v", m.Body, err)
		}
		var id struct{ ID int }
		if err := json.Unmarshal(body.After, &id); err != nil {
			t.Fatal(err)
		}
		for _, c := range rowTypes() {
			statement := fmt.Sprintf(`select coalesce(%s::text, 'NULL'), coalesce(%s::text, 'NULL') from public.kinds where id = %d`, c.name, back(c), id.ID)
			var want, got string
			if err := conn.QueryRow(t.Context(), statement, string(body.After)).Scan(&want, &got); err != nil {
				t.Errorf("%s: %v, of %s", c.kind, err, body.After)
				break
			}
			if got != want {
				t.Errorf("%s: %s came back as %s, from %s", c.kind, want, got, body.After)
			}
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
