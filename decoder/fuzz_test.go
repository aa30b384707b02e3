package decoder_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
)

func FuzzSplitCopyData(f *testing.F) {
	for _, r := range recordings(f) {
		f.Add(r.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, k, isFrame, err := decoder.SplitCopyData(data)
		switch {
		case err != nil:
			if isFrame || frame != nil || k != (decoder.Keepalive{}) {
				t.Errorf("an error and a result: %x, %+v", frame, k)
			}
		case isFrame:
			if len(frame) == 0 || !bytes.HasSuffix(data, frame) || k != (decoder.Keepalive{}) {
				t.Errorf("frame %x, keepalive %+v", frame, k)
			}
		case frame != nil:
			t.Errorf("a keepalive with frame %x", frame)
		}
	})
}

// FuzzDecode decodes a frame behind each state a stream can be in.
func FuzzDecode(f *testing.F) {
	for _, r := range recordings(f) {
		if r.kind != "k" {
			f.Add(frame(f, r.data))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range []*decoder.Decoder{decoder.New(source()), opened(t)} {
			before := d.InTransaction()
			kept := bytes.Clone(data)
			e, err := d.Decode(data)
			if !bytes.Equal(data, kept) {
				t.Fatal("the frame was changed")
			}
			if err != nil {
				var bad *decoder.FrameError
				if e != nil || !errors.As(err, &bad) || d.InTransaction() != before {
					t.Fatalf("%v, %v, in transaction %t", e, err, d.InTransaction())
				}
				continue
			}
			checkEvent(t, e, before, d.InTransaction())
		}
	})
}

// checkEvent checks what holds for every event, whatever it was read from.
func checkEvent(t *testing.T, e decoder.Event, before, after bool) {
	t.Helper()
	ok := before == after
	switch e := e.(type) {
	case decoder.Begin:
		ok = !before && after && e.Commit != 0
	case decoder.Commit:
		ok = before && !after && e.End != 0
	case decoder.Message:
		ok = ok && e.LSN != 0 && e.ID != "" && (!e.Transactional || after)
	case decoder.Other:
	default:
		ok = false
	}
	if !ok {
		t.Fatalf("%T %+v, in transaction before %t, after %t", e, e, before, after)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte{})
	f.Add(written{version: 1, kind: 'p', broker: 1, fields: []field{{'x', "ex"}, {'h', `{"a":1}`}}, body: []byte("body")}.bytes())
	f.Add(written{version: 1, kind: 'p', fields: []field{{'o', "origin"}, {'k', "key"}}}.bytes())
	f.Add(written{version: 1, kind: 'n', unclosed: true}.bytes())
	f.Fuzz(func(t *testing.T, content []byte) {
		e, err := decoder.ParseEnvelope(content)
		if err != nil {
			var bad *decoder.EnvelopeError
			if !errors.As(err, &bad) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if !bytes.HasSuffix(content, e.Body) {
			t.Fatalf("body %x", e.Body)
		}
		head, body := e.SplitWithOrigin(content, "s-1-0/1")
		again, err := decoder.ParseEnvelope(slices.Concat(head, body))
		if err != nil || !bytes.Equal(again.Body, e.Body) || again.Origin == "" {
			t.Fatalf("split: %v, origin %q, body %x", err, again.Origin, again.Body)
		}
	})
}
