package decoder_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgamqp/pgamqp/decoder"
)

// vector is what a SQL function wrote for a call. The SQL tests compare their
// functions with the same file, so that the two sides cannot drift apart.
type vector struct {
	Name       string            `json:"name"`
	SQL        string            `json:"sql"`
	Kind       string            `json:"kind"`
	BrokerID   int32             `json:"broker_id"`
	Fields     map[string]string `json:"fields"`
	BodyHex    string            `json:"body_hex"`
	ContentHex string            `json:"content_hex"`
}

// vectors reads the golden vectors; it is an error if there are none.
func vectors(tb testing.TB) []vector {
	tb.Helper()
	text, err := os.ReadFile("testdata/envelopes.json")
	if err != nil {
		tb.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var out []vector
	if err := d.Decode(&out); err != nil {
		tb.Fatal(err)
	}
	if len(out) == 0 {
		tb.Fatal("testdata/envelopes.json is empty")
	}
	return out
}

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestEnvelopesOfTheSQLFunctionsAreRead(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		seen[v.Kind] = true
		t.Run(v.Name, func(t *testing.T) {
			content := unhex(t, v.ContentHex)
			e, err := decoder.ParseEnvelope(content)
			if err != nil {
				t.Fatalf("%s: %v", v.SQL, err)
			}
			want := map[byte]string{}
			for tag, value := range v.Fields {
				want[tag[0]] = value
			}
			if diff := cmp.Diff(want, read(e)); diff != "" {
				t.Errorf("%s: want -, got +:\n%s", v.SQL, diff)
			}
			if string(byte(e.Kind)) != v.Kind || e.BrokerID != v.BrokerID {
				t.Errorf("%s: kind %q, broker %d", v.SQL, byte(e.Kind), e.BrokerID)
			}
			if want := unhex(t, v.BodyHex); !bytes.Equal(e.Body, want) {
				t.Errorf("%s: body %x, want %x", v.SQL, e.Body, want)
			}
		})
	}
	for _, kind := range kinds {
		if !seen[string(kind)] {
			t.Errorf("no vector of kind %q", kind)
		}
	}
}
