package decoder_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// benchEnvelope makes an envelope with these fields, in the order of their tags, and a
// body of 200 bytes.
func benchEnvelope(tags string, value func(tag byte) string) []byte {
	b := []byte{1, 'p', 0, 0, 0, 1}
	for _, tag := range []byte(tags) {
		v := value(tag)
		b = binary.BigEndian.AppendUint32(b, uint32(tag)<<24|uint32(len(v)))
		b = append(b, v...)
	}
	return append(b, make([]byte, 4+200)...)
}

// fourArguments is what amqp.publish with four arguments writes.
func fourArguments() []byte {
	return benchEnvelope("xkr", func(tag byte) string {
		return map[byte]string{'x': "orders", 'k': "order.created", 'r': "shop"}[tag]
	})
}

func allProperties() []byte {
	return benchEnvelope("xkmtnychipewausr", func(tag byte) string {
		switch tag {
		case 'm', 'p':
			return "2"
		case 'e', 's':
			return "60000"
		case 'h':
			return `{"tenant": "a", "attempt": 1}`
		}
		return "some-text-" + string(tag)
	})
}

func BenchmarkDecode(b *testing.B) {
	now := time.Now()
	source := decoder.Source{SystemID: "7423456789012345678", Timeline: 1}
	frames := [][]byte{
		fakewal.Begin(7, 0x1600100, now).Data,
		fakewal.Message(0x1600080, true, decoder.Prefix, fourArguments()).Data,
		fakewal.Commit(0x1600100, 0x1600130, now).Data,
	}
	run := func(name string, frames ...[]byte) {
		b.Run(name, func(b *testing.B) {
			d := decoder.New(source)
			b.ReportAllocs()
			for b.Loop() {
				for _, frame := range frames {
					if _, err := d.Decode(frame, 0x100); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	run("begin+commit", frames[0], frames[2])
	run("begin+message+commit", frames...)
	run("message", fakewal.Message(0x1600080, false, decoder.Prefix, fourArguments()).Data)
}

func BenchmarkParseEnvelope(b *testing.B) {
	for _, c := range []struct {
		name    string
		content []byte
	}{
		{"four arguments", fourArguments()},
		{"all properties", allProperties()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decoder.ParseEnvelope(c.content); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
