package publisher

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

func TestR22AndR23HeadersHaveTheTypesOfTheirJSON(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	for in, want := range map[string]any{
		`"text"`:                                 "text",
		`""`:                                     "",
		`"ü\u0000"`:                              "ü\x00",
		`true`:                                   true,
		`false`:                                  false,
		`null`:                                   nil,
		`0`:                                      int64(0),
		`-1`:                                     int64(-1),
		`5000000000`:                             int64(5000000000), // a Go int would be cut to 32 bits
		`9223372036854775807`:                    int64(math.MaxInt64),
		`-9223372036854775808`:                   int64(math.MinInt64),
		`9223372036854775808`:                    float64(9223372036854775808),
		`1.5`:                                    1.5,
		`1e3`:                                    1000.0,
		`0.1`:                                    0.1,
		`[]`:                                     []any{},
		`[1, "a", null]`:                         []any{int64(1), "a", nil},
		`{}`:                                     amqp.Table{},
		`{"a": {"b": [true]}}`:                   amqp.Table{"a": amqp.Table{"b": []any{true}}},
		`{"$int8": -128}`:                        int8(-128),
		`{"$int8": "127"}`:                       int8(127),
		`{"$uint8": 255}`:                        uint8(255),
		`{"$int16": -32768}`:                     int16(-32768),
		`{"$uint16": 65535}`:                     uint16(65535),
		`{"$int32": 2147483647}`:                 int32(2147483647),
		`{"$uint32": 4294967295}`:                uint32(4294967295),
		`{"$int64": 1}`:                          int64(1),
		`{"$float": 1.5}`:                        float32(1.5),
		`{"$double": 1}`:                         float64(1),
		`{"$decimal": "12.34"}`:                  amqp.Decimal{Scale: 2, Value: 1234},
		`{"$decimal": "-0.05"}`:                  amqp.Decimal{Scale: 2, Value: -5},
		`{"$decimal": 7}`:                        amqp.Decimal{Scale: 0, Value: 7},
		`{"$decimal": "-2147483648"}`:            amqp.Decimal{Scale: 0, Value: math.MinInt32},
		`{"$timestamp": 0}`:                      at(0),
		`{"$timestamp": 253402300799}`:           at(253402300799),
		`{"$timestamp": "2024-02-29T12:00:00Z"}`: at(1709208000),
		`{"$timestamp": "2024-02-29T14:00:00+02:00"}`:    at(1709208000),
		`{"$timestamp": "2024-02-29T14:00:00.999+0200"}`: at(1709208000),
		`{"$timestamp": "2024-02-29 14:00:00.5+02"}`:     at(1709208000), // as PostgreSQL prints it
		`{"$bytes": "AP8="}`:                             []byte{0, 0xff},
		`{"$bytes": ""}`:                                 []byte{},
		`{"$string": "s"}`:                               "s",
		`{"$table": {"$int8": 1}}`:                       amqp.Table{"$int8": int64(1)},
		`{"$table": {}}`:                                 amqp.Table{},
		`{"$int8": 1, "other": 2}`:                       amqp.Table{"$int8": int64(1), "other": int64(2)},
		`[{"$uint8": 1}]`:                                []any{uint8(1)},
	} {
		got, err := parseHeaders(`{"k": ` + in + `}`)
		if diff := cmp.Diff(amqp.Table{"k": want}, got); err != nil || diff != "" {
			t.Errorf("%s: %v, want -, got +:\n%s", in, err, diff)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: the library would refuse it: %v", in, err)
		}
	}
}

func TestHeadersThatABrokerWouldPunishAreRefused(t *testing.T) {
	for in, say := range map[string]string{
		``:                                       "not a JSON object",
		`null`:                                   "are null",
		`[]`:                                     "not a JSON object",
		`"text"`:                                 "not a JSON object",
		`{"a": 1} {"b": 2}`:                      "text behind",
		`{"a": 1}x`:                              "text behind",
		`{"a": 1e999}`:                           "not a finite number",
		`{"a": {"$double": "NaN"}}`:              "not a finite number",
		`{"a": {"$double": "Infinity"}}`:         "not a finite number",
		`{"a": {"$float": 1e39}}`:                "not a finite number of 32 bits",
		`{"a": {"$int8": 128}}`:                  "not in its range",
		`{"a": {"$int8": 1.5}}`:                  "not in its range",
		`{"a": {"$uint8": -1}}`:                  "not in its range",
		`{"a": {"$uint16": 65536}}`:              "not in its range",
		`{"a": {"$int32": 2147483648}}`:          "not in its range",
		`{"a": {"$uint32": 4294967296}}`:         "not in its range",
		`{"a": {"$int64": 9223372036854775808}}`: "not in its range",
		`{"a": {"$int8": true}}`:                 "is not a number",
		`{"a": {"$int8": []}}`:                   "is not a number",
		`{"a": {"$decimal": "1.2.3"}}`:           "unscaled value of 32 bits",
		`{"a": {"$decimal": "1.-2"}}`:            "unscaled value of 32 bits",
		`{"a": {"$decimal": "1e5"}}`:             "unscaled value of 32 bits",
		`{"a": {"$decimal": "."}}`:               "unscaled value of 32 bits",
		`{"a": {"$decimal": "214748364.80"}}`:    "unscaled value of 32 bits",
		`{"a": {"$decimal": "0.` + strings.Repeat("0", 256) + `"}}`: "at most 255 digits",
		`{"a": {"$timestamp": -1}}`:                                 "between 1970 and 9999",
		`{"a": {"$timestamp": 253402300800}}`:                       "between 1970 and 9999",
		`{"a": {"$timestamp": "1969-12-31T23:59:59Z"}}`:             "between 1970 and 9999",
		`{"a": {"$timestamp": "2024-02-29T12:00:00"}}`:              "its zone",
		`{"a": {"$timestamp": 1.5}}`:                                "neither seconds",
		`{"a": {"$timestamp": true}}`:                               "is not a number",
		`{"a": {"$bytes": "?"}}`:                                    "not base64",
		`{"a": {"$bytes": 1}}`:                                      "not a string in base64",
		`{"a": {"$string": 1}}`:                                     "is not a string",
		`{"a": {"$table": []}}`:                                     "is not an object",
		`{"a": {"$": 1}}`:                                           "is not known",
		`{"a": {"$uint64": 1}}`:                                     "$uint64 is not known",
	} {
		got, err := parseHeaders(in)
		var bad *InvalidError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, %v; want an error with %q", in, got, err, say)
		}
	}
}

func TestHeaderKeysAreBounded(t *testing.T) {
	key := func(n int) string { return strings.Repeat("k", n) }
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{`{"` + key(255) + `": 1}`, true},
		{`{"` + key(256) + `": 1}`, false},
		{`{"` + strings.Repeat("ü", 127) + `k": 1}`, true}, // bytes count, not letters
		{`{"` + strings.Repeat("ü", 128) + `": 1}`, false},
		{`{"a": {"b": {"` + key(256) + `": 1}}}`, false},
		{`{"a": {"$table": {"` + key(256) + `": 1}}}`, false},
		{`{"a": [{"` + key(256) + `": 1, "b": 2}]}`, false},
		{`{"a": {"$` + key(254) + `": 1, "b": 2}}`, true},
	} {
		if got, err := parseHeaders(c.text); (err == nil) != c.ok {
			t.Errorf("%.40s...: %v, %v", c.text, got != nil, err)
		}
	}
}

func TestHeadersAreNestedAtMostSixteenDeep(t *testing.T) {
	for _, c := range []struct{ open, end string }{
		{`{"a":`, `}`}, {`[`, `]`}, {`{"$table":{"a":`, `}}`}, {`[{"a":`, `}]`},
	} {
		nested := func(n int) string {
			return `{"a":` + strings.Repeat(c.open, n) + `1` + strings.Repeat(c.end, n) + `}`
		}
		per := 1
		if c.open == `[{"a":` {
			per = 2 // each is an array and a table
		}
		most := (maxDepth - 1) / per
		if _, err := parseHeaders(nested(most)); err != nil {
			t.Errorf("%d times %s: %v", most, c.open, err)
		}
		if got, err := parseHeaders(nested(most + 1)); err == nil {
			t.Errorf("%d times %s: %v", most+1, c.open, got)
		}
	}
	if _, err := parseHeaders(strings.Repeat(`{"a":[`, 100_000)); err == nil {
		t.Error("no error for a text without an end")
	}
}

func TestRoutingHeadersMustBeListsOfKeys(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"CC": []}`: true, `{"BCC": ["a", "b"]}`: true, `{"cc": 1}`: true, `{"a": {"CC": 1, "b": 2}}`: true,
		`{"CC": "a"}`: false, `{"BCC": null}`: false, `{"CC": [1]}`: false, `{"BCC": ["a", ["b"]]}`: false,
	} {
		table, err := parseHeaders(text)
		if err != nil {
			t.Fatal(err)
		}
		var bad *InvalidError
		if err := checkRoutingHeaders(table); (err == nil) != ok || err != nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
