package publisher

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// encodedTable encodes a table as the protocol says, with placeholders for what
// has a fixed size. It is a second opinion on tableSize; the real library is the
// third, in TestSizeIsThatOfTheFrameOnTheWire.
func encodedTable(t amqp.Table) []byte {
	var b []byte
	for key, value := range t {
		b = append(append(b, byte(len(key))), key...)
		b = append(b, encodedField(value)...)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func encodedField(value any) []byte {
	long := func(tag byte, b []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{tag}, uint32(len(b))), b...)
	}
	switch v := value.(type) {
	case nil:
		return []byte{'V'}
	case string:
		return long('S', []byte(v))
	case []byte:
		return long('x', v)
	case amqp.Table:
		return append([]byte{'F'}, encodedTable(v)...)
	case []any:
		var b []byte
		for _, e := range v {
			b = append(b, encodedField(e)...)
		}
		return long('A', b)
	case time.Time:
		return make([]byte, 1+8)
	case amqp.Decimal:
		return make([]byte, 1+1+4)
	}
	return make([]byte, 1+binary.Size(value))
}

// values draws any header value that parseHeaders can give.
func values(depth int) *rapid.Generator[any] {
	all := []*rapid.Generator[any]{
		rapid.Just(any(nil)), rapid.Bool().AsAny(), rapid.String().AsAny(), rapid.SliceOf(rapid.Byte()).AsAny(),
		rapid.Int8().AsAny(), rapid.Uint8().AsAny(), rapid.Int16().AsAny(), rapid.Uint16().AsAny(),
		rapid.Int32().AsAny(), rapid.Uint32().AsAny(), rapid.Int64().AsAny(), rapid.Float32().AsAny(), rapid.Float64().AsAny(),
		rapid.Just(any(amqp.Decimal{Scale: 2, Value: 3})), rapid.Just(any(time.Unix(1, 0))),
	}
	if depth > 0 {
		all = append(all, tables(depth-1).AsAny(), rapid.SliceOfN(values(depth-1), 0, 4).AsAny())
	}
	return rapid.OneOf(all...)
}

func tables(depth int) *rapid.Generator[amqp.Table] {
	return rapid.Custom(func(r *rapid.T) amqp.Table {
		return rapid.MapOfN(rapid.StringN(0, 20, 255), values(depth), 0, 5).Draw(r, "table")
	})
}

func publishings() *rapid.Generator[amqp.Publishing] {
	return rapid.Custom(func(r *rapid.T) amqp.Publishing {
		text := func(name string) string { return rapid.StringN(0, 30, 255).Draw(r, name) }
		return amqp.Publishing{
			Headers: tables(2).Draw(r, "headers"), ContentType: text("content type"), ContentEncoding: text("encoding"),
			DeliveryMode: rapid.Uint8Range(1, 2).Draw(r, "mode"), Priority: rapid.Uint8().Draw(r, "priority"),
			CorrelationId: text("correlation"), ReplyTo: text("reply to"), Expiration: text("expiration"), MessageId: text("id"),
			Timestamp: rapid.SampledFrom([]time.Time{{}, time.Unix(1, 0)}).Draw(r, "timestamp"), Type: text("type"),
			UserId: text("user"), AppId: text("app"),
		}
	})
}

// The broker closes the connection for one byte too many, so the size must be
// right to the byte.
func TestSizeIsThatOfTheFrameOnTheWire(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		p := publishings().Draw(r, "properties")
		if err := ch.Publish("x", "k", false, false, p); err != nil {
			r.Fatal(err)
		}
		got := fakeamqp.Await[*fakeamqp.Publish](r, s)
		wire := 2 + 2 + 8 + len(got.Raw) // class, weight, body size, properties
		if p.Priority == 0 {
			wire++ // room is counted for it in any case
		}
		if p.Timestamp.IsZero() {
			wire += 8
		}
		if size := headerFrameSize(&p); size != wire {
			r.Fatalf("size %d, on the wire %d", size, wire)
		}
		if len(p.Headers) > 0 && (tableSize(p.Headers) != 4+len(got.Properties.Headers) || len(encodedTable(p.Headers)) != tableSize(p.Headers)) {
			r.Fatalf("table of %d, on the wire %d", tableSize(p.Headers), 4+len(got.Properties.Headers))
		}
	})
}

// withHeaders is the content of a message whose header frame has n bytes, by our
// own count.
func withHeaders(tb testing.TB, n int) []byte {
	tb.Helper()
	content := func(filler int) []byte {
		return envelope(decoder.KindPublish, 1, fields{'x': "x", 'p': "1", 's': "1", 'h': fmt.Sprintf(`{"k": %q}`, strings.Repeat("h", filler))}, "")
	}
	r := mustRoute(tb, 0, content(0), Headers{})
	base := headerFrameSize(&r.properties)
	return content(n - base)
}
