package rows

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"
)

// described are the types of a database, by their OIDs.
func described() map[uint32]*Description {
	return map[uint32]*Description{
		50001: {Kind: 'e', Name: "mood"},
		50002: {Kind: 'b', Name: "_mood", Elem: 50001, Delimiter: ','},
		50003: {Kind: 'd', Name: "positive", Base: 50004, Modifier: -1},
		50004: {Kind: 'd', Name: "small", Base: 23, Modifier: -1},
		50005: {Kind: 'c', Name: "pair", Attributes: []Attribute{{"n", 23, -1}, {"text", 25, -1}, {"list", 1007, -1}}},
		50006: {Kind: 'b', Name: "_pair", Elem: 50005, Delimiter: ','},
		50007: {Kind: 'b', Name: "hstore"},
		50008: {Kind: 'r', Name: "int4range"},
		50009: {Kind: 'b', Name: "_box", Elem: 50010, Delimiter: ';'},
		50010: {Kind: 'b', Name: "box"},
		50011: {Kind: 'd', Name: "endless", Base: 50011, Modifier: -1},
		50012: {Kind: 'c', Name: "documented", Attributes: []Attribute{{"doc", 3802, -1}, {"pair", 50005, -1}}},
		50013: {Kind: 'd', Name: "moment", Base: 1114, Modifier: 3},
		50014: {Kind: 'b', Name: "_moment", Elem: 50013, Delimiter: ','},
		50015: {Kind: 'c', Name: "marked", Attributes: []Attribute{{"at", 1114, 3}, {"flag", 1560, 1}}},
	}
}

// known returns a type by its OID.
func known(t testing.TB, oid uint32) *Type {
	t.Helper()
	types := NewTypes(func(_ context.Context, oid uint32) (*Description, error) { return described()[oid], nil })
	found, err := types.Of(t.Context(), oid)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestValuesBecomeJSON(t *testing.T) {
	for _, c := range []struct {
		oid        uint32
		text, want string
	}{
		{16, "t", "true"},
		{16, "f", "false"},
		{23, "-12", "-12"},
		{20, "9223372036854775807", "9223372036854775807"},
		{701, "1.5e-07", "1.5e-07"},
		{701, "NaN", `"NaN"`},
		{700, "-Infinity", `"-Infinity"`},
		{23, "007", `"007"`},
		{701, "1.", `"1."`},
		{701, "1e", `"1e"`},
		{701, "-1.25E+20", "-1.25E+20"},
		{1700, "12.50", `"12.50"`},
		{1700, "NaN", `"NaN"`},
		{17, `\x00ff`, `"AP8="`},
		{17, `\x`, `""`},
		{17, `\xzz`, `"\\xzz"`},
		{114, `{"a": [1, 2]}`, `{"a": [1, 2]}`},
		{25, "a\"b\\c\n\t\r\x01ü", `"a\"b\\c\n\t\r\u0001ü"`},
		{25, "\xff", "\"\ufffd\""},
		{1114, "2026-01-02 03:04:05.5", `"2026-01-02T03:04:05.5"`},
		{1184, "2026-01-02 03:04:05+00", `"2026-01-02T03:04:05Z"`},
		{1184, "0044-03-15 00:00:00+00 BC", `"0044-03-15 00:00:00+00 BC"`},
		{1184, "infinity", `"infinity"`},
		{1082, "2026-01-02", `"2026-01-02"`},
		{1186, "P1DT2H", `"P1DT2H"`},
		{1007, "{1,NULL,3}", "[1,null,3]"},
		{1007, "{}", "[]"},
		{1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"},
		{1007, "[0:1]={5,6}", "[5,6]"},
		{1007, "{1,2", `"{1,2"`},
		{1007, "{1}x", `"{1}x"`},
		{1009, `{a,"b,c","say \"x\\y\"","NULL",""}`, `["a","b,c","say \"x\\y\"","NULL",""]`},
		{1001, `{"\\x00ff"}`, `["AP8="]`},
		{1185, `{"2026-01-02 03:04:05+00"}`, `["2026-01-02T03:04:05Z"]`},
		{3807, `{"{\"a\": 1}",NULL}`, `[{"a": 1},null]`},
		{50001, "happy", `"happy"`},
		{50002, "{happy,sad}", `["happy","sad"]`},
		{50003, "7", "7"},
		{50005, `(1,"a ""b"" \\",{1})`, `{"n":1,"text":"a \"b\" \\","list":[1]}`},
		{50005, `(,,"{1,2}")`, `{"n":null,"text":null,"list":[1,2]}`},
		{50005, `(1,"",)`, `{"n":1,"text":"","list":null}`},
		{50005, `(1)`, `"(1)"`},
		// The type had other attributes when the row was written.
		{50005, `(1x,"a",{2y})`, `{"n":"1x","text":"a","list":["2y"]}`},
		{50012, `(plain,"(1,b,)")`, `{"doc":"plain","pair":{"n":1,"text":"b","list":null}}`},
		{50006, `{"(1,a,)","(2,\"b c\",\"{3}\")"}`, `[{"n":1,"text":"a","list":null},{"n":2,"text":"b c","list":[3]}]`},
		{50007, `"a"=>"1", "b \"c"=>NULL`, `{"a":"1","b \"c":null}`},
		{50007, ``, `{}`},
		{50007, `"a"`, `"\"a\""`},
		{50008, "[1,5)", `"[1,5)"`},
		{50009, "{(1,1),(0,0);(2,2),(1,1)}", `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{50011, "x", `"x"`},
		{59999, "dropped", `"dropped"`},
	} {
		got := string(Encoding{}.appendValue([]byte("before"), known(t, c.oid), []byte(c.text)))
		if got != "before"+c.want {
			t.Errorf("type %d: %s became %s, want %s", c.oid, c.text, strings.TrimPrefix(got, "before"), c.want)
		}
		if !json.Valid([]byte(strings.TrimPrefix(got, "before"))) {
			t.Errorf("type %d: %s is no JSON", c.oid, got)
		}
	}
}

func TestEncodingChoosesTheForm(t *testing.T) {
	e := Encoding{NumericAsNumber: true, BytesAsHex: true}
	for _, c := range []struct {
		oid        uint32
		text, want string
	}{
		{1700, "12.50", "12.50"},
		{1700, "NaN", `"NaN"`},
		{1231, "{1.0,NULL}", "[1.0,null]"},
		{17, `\x00ff`, `"00ff"`},
	} {
		if got := string(e.appendValue(nil, known(t, c.oid), []byte(c.text))); got != c.want {
			t.Errorf("type %d: %s became %s, want %s", c.oid, c.text, got, c.want)
		}
	}
}

// FuzzValue: whatever the text, the outcome is JSON. JSON itself is the server's, which has checked it, but for
// that in a composite value: its type may have changed.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"{1,2}", `{"a\"",b}`, `(1,"a ""b""",{1})`, `"a"=>"1", "b"=>NULL`, "[0:1]={x,y}", `\x00`, "2026-01-02 03:04:05+00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, oid := range []uint32{16, 17, 23, 25, 701, 1007, 1114, 1184, 1000, 1009, 1001, 1185, 50002, 50005, 50006, 50007, 50009, 50012} {
			if got := (Encoding{}).appendValue(nil, known(t, oid), []byte(text)); !json.Valid(got) {
				t.Fatalf("type %d: %q became %s", oid, text, got)
			}
		}
		composite := &Type{Kind: KindComposite, Fields: []Field{{"a", known(t, 25)}, {"b", known(t, 1009)}}}
		if got := (Encoding{}).appendValue(nil, composite, []byte(text)); !json.Valid(got) {
			t.Fatalf("composite: %q became %s", text, got)
		}
	})
}

func TestPositionsAreWrittenAsPostgreSQLDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lsn := pglogrepl.LSN(rapid.Uint64().Draw(t, "lsn") >> rapid.IntRange(0, 63).Draw(t, "shift"))
		if got := string(appendLSN(nil, lsn)); got != lsn.String() {
			t.Errorf("%s, want %s", got, lsn)
		}
	})
}
