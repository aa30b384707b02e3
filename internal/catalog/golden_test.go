package catalog_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// golden is an envelope that the SQL functions and the decoder must agree on. The
// decoder's tests read the same file.
type golden struct {
	Name       string            `json:"name"`
	SQL        string            `json:"sql"`
	Kind       string            `json:"kind"`
	BrokerID   int32             `json:"broker_id"`
	Fields     map[string]string `json:"fields"`
	BodyHex    string            `json:"body_hex"`
	ContentHex string            `json:"content_hex"`
}

func TestFunctionsWriteTheGoldenEnvelopes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "decoder", "testdata", "envelopes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []golden
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'a'), (2147483647, 'b'), (-2, 'c')`)
		contents(t, conn, name)
		for _, v := range vectors {
			t.Run(v.Name, func(t *testing.T) {
				exec(t, conn, v.SQL)
				got := contents(t, conn, name)
				if len(got) != 1 {
					t.Fatalf("%d messages, want 1", len(got))
				}
				if hex.EncodeToString(got[0]) != v.ContentHex {
					t.Errorf("%s\n got %x\nwant %s", v.SQL, got[0], v.ContentHex)
				}
				if encoded := encode(t, v); !bytes.Equal(encoded, got[0]) {
					t.Errorf("the fields of the vector encode to\n     %x", encoded)
				}
			})
		}
	})
}

// contents empties the slot and returns the contents of its messages in stream order.
func contents(t testing.TB, conn *pgx.Conn, slot string) [][]byte {
	t.Helper()
	// What is outside a transaction reaches the disk with the next commit.
	exec(t, conn, `create temp table if not exists flush (at timestamptz)`)
	exec(t, conn, `drop table flush`)
	rows, err := conn.Query(t.Context(), `select data from pg_logical_slot_get_binary_changes($1, null, null,
		'proto_version', '1', 'publication_names', $2, 'messages', 'true')`, slot, slot)
	if err != nil {
		t.Fatal(err)
	}
	frames, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	var found [][]byte
	for _, frame := range frames {
		const beforePrefix = 1 + 1 + 8 // 'M', flags, position
		if frame[0] != 'M' {
			continue
		}
		prefix, rest, _ := bytes.Cut(frame[beforePrefix:], []byte{0})
		if string(prefix) != "amqp" {
			continue // somebody else's
		}
		if n := binary.BigEndian.Uint32(rest); int(n) != len(rest)-4 {
			t.Fatalf("length %d of %d bytes", n, len(rest)-4)
		}
		found = append(found, rest[4:])
	}
	return found
}

// encode is the format of the envelope once more, in the fewest words.
func encode(t testing.TB, v golden) []byte {
	t.Helper()
	order := map[string]string{"p": "oxkmtnychipewausfr", "x": "oxwfhr", "q": "oqfhr", "b": "oqxkhr", "e": "oqxkhr"}[v.Kind]
	if order == "" {
		order = "or"
	}
	content := binary.BigEndian.AppendUint32([]byte{1, v.Kind[0]}, uint32(v.BrokerID))
	used := 0
	for _, tag := range order {
		if value, ok := v.Fields[string(tag)]; ok {
			content = binary.BigEndian.AppendUint32(content, uint32(tag)<<24|uint32(len(value)))
			content = append(content, value...)
			used++
		}
	}
	if used != len(v.Fields) {
		t.Errorf("fields of an unknown tag: %v", v.Fields)
	}
	body, err := hex.DecodeString(v.BodyHex)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(content, 0, 0, 0, 0), body...)
}
