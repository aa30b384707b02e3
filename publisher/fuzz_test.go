package publisher

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

// FuzzParseHeaders checks what holds for all headers that are let through: the
// library takes them, their size is known and bounded by that of the text, they are
// not nested deeper than allowed, no integer can be cut, nothing is lost of the keys.
func FuzzParseHeaders(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a": 1, "b": [true, null, 1.5, "x"], "c": {"d": {}}}`,
		`{"a": {"$int8": 1}, "b": {"$uint8": 1}, "c": {"$int16": 1}, "d": {"$uint16": 1}, "e": {"$int32": 1}, "f": {"$uint32": 1}}`,
		`{"a": {"$int64": 1}, "b": {"$float": 1}, "c": {"$double": 1}, "d": {"$decimal": "1.5"}, "e": {"$timestamp": 1}}`,
		`{"a": {"$bytes": "AA=="}, "b": {"$string": "x"}, "c": {"$table": {"$int8": 1}}}`,
		`{"CC": ["a"]}`, `{"a": 1e999}`, `[[[[`, `{"a": {"$timestamp": "2024-02-29T12:00:00Z"}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		table, err := parseHeaders(text)
		if err != nil {
			var bad *InvalidError
			if !errors.As(err, &bad) || len(err.Error()) > 10_000 {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if err := table.Validate(); err != nil {
			t.Fatalf("the library refuses %v: %v", table, err)
		}
		checkTable(t, table)
		if got := tableSize(table); got > 4+8*len(text) {
			t.Fatalf("%d bytes of text became %d", len(text), got)
		}
		var plain map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &plain); err != nil || len(plain) != len(table) {
			t.Fatalf("%d keys of %d: %v", len(table), len(plain), err)
		}
	})
}

// FuzzRoute checks what holds for all requests that a content may become: nothing
// in them makes the library or the broker close the channel, or worse.
func FuzzRoute(f *testing.F) {
	all := fields{
		'x': "ex", 'k': "key", 'q': "queue", 'm': "1", 't': "text/plain", 'n': "gzip", 'y': "reply", 'c': "corr",
		'h': `{"CC": ["a"], "n": 1}`, 'i': "id", 'p': "7", 'e': "1000", 'w': "topic", 'a': "app", 'u': "user", 's': "1700000000", 'r': "role",
	}
	for _, kind := range []byte("pxqbedcnh") {
		f.Add(envelope(decoder.Kind(kind), 1, all, "body"))
		f.Add(envelope(decoder.Kind(kind), 1, fields{'f': "pdai"}, ""))
	}
	for _, one := range []fields{
		{'m': "7"},
		{'e': "-1"},
		{'p': "256"},
		{'s': "1e9"},
		{'y': "amq.rabbitmq.reply-to"},
		{'h': `{"BCC": "a"}`},
		{'f': "u"},
		{'o': "71-1-0/42"},
		{'o': strings.Repeat("o", 256)},
		{'k': strings.Repeat("k", 256)},
		{'x': strings.Repeat("x", 255)},
	} {
		f.Add(envelope(decoder.KindPublish, 1, one, ""))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		e, err := decoder.ParseEnvelope(content)
		if err != nil {
			return // FuzzParseEnvelope's
		}
		m := message(0, content)
		r, err := route(&m, &e, Headers{LSN: true, XID: true, CommitTime: true, Role: true})
		if err != nil {
			var bad *InvalidError
			if !errors.As(err, &bad) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if op := r.operation; op != nil {
			checkShort(t, op.exchange, op.exchangeType, op.queue, op.key)
			checkTable(t, op.arguments)
			return
		}
		p := r.properties
		checkShort(t, r.exchange, r.key, p.ContentType, p.ContentEncoding, p.CorrelationId, p.ReplyTo, p.Expiration,
			p.MessageId, p.Type, p.UserId, p.AppId)
		checkTable(t, p.Headers)
		for _, key := range []string{"CC", "BCC"} {
			if v, ok := p.Headers[key]; ok {
				for _, k := range v.([]any) {
					_ = k.(string) // or the broker closes the channel
				}
			}
		}
		switch {
		case p.DeliveryMode != 1 && p.DeliveryMode != 2, p.MessageId == "",
			strings.Trim(p.Expiration, "0123456789") != "", p.ReplyTo == "amq.rabbitmq.reply-to",
			!p.Timestamp.IsZero() && (p.Timestamp.Unix() < 0 || p.Timestamp.Year() > 9999), !bytes.Equal(p.Body, e.Body):
			t.Fatalf("%+v", p)
		}
	})
}

// checkShort fails for a string that the protocol has no room for.
func checkShort(t *testing.T, all ...string) {
	t.Helper()
	for _, s := range all {
		if len(s) > maxShortString {
			t.Fatalf("%d bytes: %q", len(s), s)
		}
	}
}

// checkTable fails for a table that the library refuses or changes, or whose size is
// not what we count.
func checkTable(t *testing.T, table amqp.Table) {
	t.Helper()
	if err := table.Validate(); err != nil {
		t.Fatalf("the library refuses %v: %v", table, err)
	}
	if got, want := tableSize(table), len(encodedTable(table)); got != want {
		t.Fatalf("size %d, encoded %d: %v", got, want, table)
	}
	checkTypes(t, table, 1)
}

// checkTypes fails for a value that the library would change on its way, and for one
// that is nested too deep.
func checkTypes(t *testing.T, value any, depth int) {
	t.Helper()
	switch v := value.(type) {
	case int, uint, uint64:
		t.Fatalf("%T %v", v, v)
	case float32:
		checkTypes(t, float64(v), depth)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("%v", v)
		}
	case amqp.Table:
		deep(t, depth)
		for key, e := range v {
			checkShort(t, key)
			checkTypes(t, e, depth+1)
		}
	case []any:
		deep(t, depth)
		for _, e := range v {
			checkTypes(t, e, depth+1)
		}
	}
}

func deep(t *testing.T, depth int) {
	t.Helper()
	if depth > maxDepth {
		t.Fatalf("nested %d deep", depth)
	}
}
