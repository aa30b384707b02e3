package publisher

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"go.uber.org/goleak"

	"github.com/pgamqp/pgamqp/decoder"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := theNode.close()
	if err == nil && code == 0 {
		err = goleak.Find(goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// limit bounds every wait of these tests; only a failing test reaches it.
const limit = 15 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// receive waits for a value, or for the channel to be closed.
func receive[T any](tb testing.TB, what string, c <-chan T) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		tb.Fatalf("%s: nothing within %s", what, limit)
		panic("unreachable")
	}
}

// until waits until something is so that nobody tells.
func until(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// fields are those of an envelope, by tag.
type fields map[byte]string

// envelope makes the content of a message, as the SQL functions write it.
func envelope(kind decoder.Kind, broker int32, f fields, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{1, byte(kind)}, uint32(broker))
	for _, tag := range []byte("oxkqmtnychipewausfr") {
		if v := f[tag]; v != "" {
			b = binary.BigEndian.AppendUint32(b, uint32(tag)<<24|uint32(len(v)))
			b = append(b, v...)
		}
	}
	return append(append(b, 0, 0, 0, 0), body...)
}

// message is the n-th message of a stream, with any content.
func message(n int, content []byte) decoder.Message {
	lsn := pglogrepl.LSN(0x1000 + 0x10*n)
	return decoder.Message{
		ID: "71-1-" + lsn.String(), LSN: lsn, Prefix: decoder.Prefix, Content: content,
		Transactional: true, XID: 7, Commit: lsn + 8, CommitTime: time.Now(),
	}
}

// parsed is an envelope that can be read.
func parsed(tb testing.TB, content []byte) decoder.Envelope {
	tb.Helper()
	e, err := decoder.ParseEnvelope(content)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}
