package snapshot

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzParsePlace: a place that is read is the same when it is written again.
func FuzzParsePlace(f *testing.F) {
	for _, s := range []string{
		`{"snapshot": 3, "chunk": 7, "schema": "s", "table": "t", "after": ["1", null], "rows": 20, "end": true, "token": "x-1"}`,
		`{"after": null}`, `[]`, `null`, `{"chunk": 1e30}`, `{"snapshot": 2147483648}`, `{"after": [1]}`, `{"token": "\u0000\ud800"}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParsePlace(body)
		if err != nil {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePlace(text); err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}
