package integration

import (
	"fmt"
	"strings"
)

// anyText is a function that makes texts of what has a meaning somewhere on the way.
const anyText = `create function public.any_text() returns text language sql volatile as $$
	select coalesce(string_agg((array['a', 'B', ' ', '"', '''', '\', '{', '}', '(', ')', ',', ';', '=>', '/', 'ü', '€', '😀', 'NULL', 'null',
		'%', e'\n', e'\t', e'\x01', e'\x7f', '\x', '[', ']', ':'])[1 + (random() * 27)::int], ''), '') from generate_series(1, (random() * 8)::int) $$`

// insertRandomKinds inserts rows of random values, of which some are NULL.
func (w *world) insertRandomKinds(rows int) {
	w.t.Helper()
	seed := newSeed(w.t).Float64()
	array := func(expression string) string {
		return fmt.Sprintf(`array(select case when random() > 0.2 then %s end from generate_series(1, (random() * 4)::int))`, expression)
	}
	const date = `date '2000-01-01' + ((random() - 0.5) * 1.2e6)::int`
	const stamp = `timestamp '2000-01-01' + make_interval(days => ((random() - 0.5) * 1e6)::int, secs => random() * 86400)`
	const pair = `row((random() * 1e9)::int, public.any_text(), array[(random() * 9)::int, null])::row_pair`
	const mood = `(array['sad', 'very happy'])[1 + (random() * 1.9)::int % 2]::row_mood`
	const bytes = `decode(md5(random()::text), 'hex')`
	values := map[string]string{
		"c_smallint": `((random() - 0.5) * 65534)::smallint`, "c_bigint": `((random() - 0.5) * 1.8e19)::bigint`, "c_oid": `(random() * 4e9)::bigint::oid`,
		"c_real": `((random() - 0.5) * 10 ^ ((random() - 0.5) * 60))::real`, "c_double": `(random() - 0.5) * 10 ^ ((random() - 0.5) * 500)`,
		"c_numeric": `((random() - 0.5) * 1e15)::numeric * 10::numeric ^ ((random() - 0.5) * 40)::int`, "c_bool": `random() > 0.5`,
		"c_text": `public.any_text()`, "c_varchar": `left(public.any_text(), 10)`, "c_bpchar": `left(public.any_text(), 5)`, "c_name": `left(public.any_text(), 15)`,
		"c_bytea": bytes, "c_date": date, "c_time": `(` + stamp + `)::time`, "c_timetz": `((` + stamp + `) at time zone 'UTC')::timetz`,
		"c_timestamp": stamp, "c_timestamptz": `(` + stamp + `) at time zone 'UTC'`,
		"c_interval": `make_interval(months => ((random() - 0.5) * 1e4)::int, days => ((random() - 0.5) * 1e4)::int, secs => (random() - 0.5) * 1e9)`,
		"c_uuid":     `md5(random()::text)::uuid`, "c_json": `jsonb_build_object(public.any_text(), public.any_text(), 'n', random(), 'a', array[public.any_text()])`,
		"c_inet": `'::'::inet + (random() * 1e18)::bigint`, "c_money": `((random() - 0.5) * 1e12)::numeric::money`, "c_bit": `((random() * 1e9)::int::bit(32))::varbit`,
		"c_range": `int4range((random() * 10)::int, 10 + (random() * 10)::int)`, "c_point": `point(random() * 1e6, random() * -1e-6)`, "c_enum": mood,
		"c_domain": `1 + (random() * 1e9)::int`, "c_ints": array(`((random() - 0.5) * 4e9)::int`), "c_texts": array(`public.any_text()`),
		"c_byteas": array(bytes), "c_stamps": array(`(` + stamp + `) at time zone 'UTC'`), "c_moods": array(mood),
		"c_composite": pair, "c_composites": array(pair), "c_hstore": `hstore(array[public.any_text() || 'k', 'b'], array[public.any_text(), null])`,
	}
	var names, expressions []string
	for _, c := range rowTypes() {
		if values[c.name] == "" {
			w.t.Fatalf("no random value for %s", c.name)
		}
		names = append(names, c.name)
		expressions = append(expressions, "case when random() > 0.1 + 0 * n then "+values[c.name]+" end")
	}
	w.script(
		anyText,
		fmt.Sprintf(`select setseed(%v)`, seed),
		fmt.Sprintf(`insert into public.kinds (%s) select %s from generate_series(1, %d) n`, strings.Join(names, ", "), strings.Join(expressions, ", "), rows),
	)
}
