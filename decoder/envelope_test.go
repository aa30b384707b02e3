package decoder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
)

// written is what an envelope is made of; its bytes are put together here without
// the help of the code under test.
type written struct {
	version  byte
	kind     byte
	broker   int32
	fields   []field
	body     []byte
	unclosed bool // without the four zeros behind the fields
}

type field struct {
	tag   byte
	value string
}

func (w written) bytes() []byte {
	b := binary.BigEndian.AppendUint32([]byte{w.version, w.kind}, uint32(w.broker))
	for _, f := range w.fields {
		b = binary.BigEndian.AppendUint32(b, uint32(f.tag)<<24|uint32(len(f.value)))
		b = append(b, f.value...)
	}
	if !w.unclosed {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, w.body...)
}

// read returns the value of each field that the parser found.
func read(e decoder.Envelope) map[byte]string {
	all := map[byte]string{
		'x': e.Exchange, 'k': e.RoutingKey, 'q': e.Queue, 'm': e.DeliveryMode, 't': e.ContentType,
		'n': e.ContentEncoding, 'y': e.ReplyTo, 'c': e.CorrelationID, 'h': e.Headers, 'i': e.MessageID,
		'p': e.Priority, 'e': e.Expiration, 'w': e.Type, 'a': e.AppID, 'u': e.UserID, 's': e.Timestamp,
		'f': e.Flags, 'r': e.Role, 'o': e.Origin,
	}
	for tag, value := range all {
		if value == "" {
			delete(all, tag)
		}
	}
	return all
}

const (
	kinds = "pxqbedcnh"
	tags  = "xkqmtnychipewausfro"
)

// envelopes draws any envelope that the SQL functions could write, and more.
func envelopes() *rapid.Generator[written] {
	return rapid.Custom(func(r *rapid.T) written {
		w := written{
			version: 1,
			kind:    rapid.SampledFrom([]byte(kinds)).Draw(r, "kind"),
			broker:  rapid.Int32().Draw(r, "broker"),
			body:    rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(r, "body"),
		}
		order := rapid.Permutation([]byte(tags)).Draw(r, "order")
		for _, tag := range order[:rapid.IntRange(0, len(tags)).Draw(r, "fields")] {
			value := rapid.StringN(1, 20, -1)
			if tag == 'o' {
				value = rapid.StringMatching(`[!-~]{1,20}`)
			}
			w.fields = append(w.fields, field{tag, value.Draw(r, "value")})
		}
		return w
	})
}

func TestEnvelopeIsReadAsWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := envelopes().Draw(r, "envelope")
		e, err := decoder.ParseEnvelope(w.bytes())
		if err != nil {
			r.Fatal(err)
		}
		want := map[byte]string{}
		for _, f := range w.fields {
			want[f.tag] = f.value
		}
		if diff := cmp.Diff(want, read(e)); diff != "" {
			r.Fatalf("want -, got +:\n%s", diff)
		}
		if byte(e.Kind) != w.kind || e.BrokerID != w.broker || !bytes.Equal(e.Body, w.body) {
			r.Fatalf("read kind %s, broker %d, body %x", e.Kind, e.BrokerID, e.Body)
		}
	})
}

// The stored head and body must be the same message when they are emitted again:
// equal but for the origin, which never changes once it is there.
func TestSplitWithOriginKeepsTheMessageAndItsFirstIdentity(t *testing.T) {
	parse := func(r *rapid.T, content []byte) decoder.Envelope {
		e, err := decoder.ParseEnvelope(content)
		if err != nil {
			r.Fatal(err)
		}
		return e
	}
	rapid.Check(t, func(r *rapid.T) {
		w := envelopes().Draw(r, "envelope")
		content := w.bytes()
		original := parse(r, content)
		kept := bytes.Clone(content)

		head, body := original.SplitWithOrigin(content, "system-1-0/100")
		again := slices.Concat(head, body)
		want := original
		if want.Origin == "" {
			want.Origin = "system-1-0/100"
		}
		got := parse(r, again)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(decoder.Envelope{}), cmpopts.EquateEmpty()); diff != "" {
			r.Fatalf("want -, got +:\n%s", diff)
		}
		if !bytes.Equal(body, w.body) || !bytes.Equal(content, kept) {
			r.Fatalf("body %x, content changed %t", body, !bytes.Equal(content, kept))
		}
		head2, body2 := got.SplitWithOrigin(again, "system-1-0/999")
		if !bytes.Equal(head2, head) || !bytes.Equal(body2, body) {
			r.Fatalf("the second redelivery differs: %x, was %x", head2, head)
		}
	})
}

func TestCutOffEnvelopesAreErrors(t *testing.T) {
	whole := written{version: 1, kind: 'p', broker: 1, fields: []field{{'x', "ex"}, {'k', "key"}, {'h', `{"a":1}`}}}.bytes()
	for n := range whole {
		var bad *decoder.EnvelopeError
		if e, err := decoder.ParseEnvelope(whole[:n]); !errors.As(err, &bad) {
			t.Errorf("%d of %d bytes: %+v, %v", n, len(whole), e, err)
		}
	}
	if _, err := decoder.ParseEnvelope(whole); err != nil {
		t.Errorf("the whole: %v", err)
	}
}

func TestContentThatIsNoEnvelopeIsRefused(t *testing.T) {
	one := func(tag byte, value string) []field { return []field{{tag, value}} }
	for _, c := range []struct {
		name string
		w    written
		say  string
	}{
		{"an older version", written{version: 0, kind: 'p'}, "version 0 is not known"},
		{"a newer version", written{version: 2, kind: 'p'}, "version 2 is not known; a newer pgamqp"},
		{"text", written{version: 'j', kind: 'u', body: []byte("nk")}, "version 106"},
		{"a kind of the future", written{version: 1, kind: 'z'}, `unknown kind 'z'; a newer pgamqp`},
		{"an upper case kind", written{version: 1, kind: 'P'}, "unknown kind"},
		{"a field of the future", written{version: 1, kind: 'p', fields: one('z', "v")}, `field 'z' is not known`},
		{"a field twice", written{version: 1, kind: 'p', fields: []field{{'x', "a"}, {'k', "b"}, {'x', "c"}}}, `field 'x' is given twice`},
		{"an empty field", written{version: 1, kind: 'p', fields: one('x', "")}, `field 'x' is empty`},
		{"tag zero with a length", written{version: 1, kind: 'p', fields: one(0, "v")}, `field '\x00'`},
		{"invalid UTF-8", written{version: 1, kind: 'p', fields: one('k', "a\xff")}, `field 'k' is not UTF-8`},
		{"half a character", written{version: 1, kind: 'p', fields: one('k', "\xc3")}, `field 'k' is not UTF-8`},
		{"an origin that no message_id can hold", written{version: 1, kind: 'p', fields: one('o', strings.Repeat("o", 256))}, `field 'o' is no identity`},
		{"an origin that no text column can hold", written{version: 1, kind: 'p', fields: one('o', "71-1-0/1\x00")}, `field 'o' is no identity`},
		{"no end", written{version: 1, kind: 'p', fields: one('x', "a"), unclosed: true}, "no end"},
	} {
		e, err := decoder.ParseEnvelope(c.w.bytes())
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %+v, %v; want an error with %q", c.name, e, err, c.say)
		}
	}
}

func TestFieldOfThreeLengthBytesIsRead(t *testing.T) {
	long := strings.Repeat("h", 1<<24-1)
	e, err := decoder.ParseEnvelope(written{version: 1, kind: 'p', fields: []field{{'h', long}}, body: []byte("b")}.bytes())
	if err != nil || e.Headers != long || string(e.Body) != "b" {
		t.Errorf("read %d bytes, body %q, %v", len(e.Headers), e.Body, err)
	}
}

// Strings outlive the content, which may be large; the body is a part of it.
func TestBodyIsAPartOfTheContentAndStringsAreNot(t *testing.T) {
	content := written{version: 1, kind: 'p', fields: []field{{'x', "ex"}}, body: []byte("body")}.bytes()
	e, err := decoder.ParseEnvelope(content)
	if err != nil {
		t.Fatal(err)
	}
	clear(content)
	if e.Exchange != "ex" || string(e.Body) != "\x00\x00\x00\x00" {
		t.Errorf("exchange %q, body %q", e.Exchange, e.Body)
	}
}

func TestEveryKindHasTheNameOfItsFunction(t *testing.T) {
	var names []string
	for _, k := range []byte(kinds) {
		names = append(names, decoder.Kind(k).String())
	}
	want := []string{
		"publish", "exchange_declare", "queue_declare", "queue_bind", "exchange_bind",
		"disconnect", "brokers_changed", "ping", "heartbeat",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if got := decoder.Kind('z').String(); got != "unknown kind 'z'" {
		t.Errorf("got %q", got)
	}
}
