package decoder_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

func FuzzSplitCopyData(f *testing.F) {
	for _, r := range recordings(f) {
		f.Add(r.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decoder.SplitCopyData(data)
		empty := decoder.Keepalive{}
		switch {
		case err != nil:
			if c.Frame != nil || c.Keepalive != empty {
				t.Errorf("an error and a result: %+v", c)
			}
		case c.Frame != nil:
			if len(c.Frame) == 0 || !bytes.HasSuffix(data, c.Frame) || c.Keepalive != empty {
				t.Errorf("%+v", c)
			}
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
			e, err := d.Decode(data, 0x100)
			if !bytes.Equal(data, kept) {
				t.Fatal("the frame was changed")
			}
			if err != nil {
				var bad *decoder.FrameError
				if e != nil || !errors.As(err, &bad) || len(bad.Head) > 64 || d.InTransaction() != before {
					t.Fatalf("%v, %v, in transaction %t", e, err, d.InTransaction())
				}
				continue
			}
			checkEvent(t, e, before, d.InTransaction())
			checkWritten(t, e, data)
		}
	})
}

// checkEvent checks what holds for every event, whatever it was read from.
func checkEvent(t *testing.T, e decoder.Event, before, after bool) {
	t.Helper()
	ok := before == after
	switch e := e.(type) {
	case *decoder.Begin:
		ok = !before && after && e.Commit != 0
	case *decoder.Commit:
		ok = before && !after && e.End != 0
	case *decoder.Message:
		ok = ok && e.LSN != 0 && e.ID != "" && (!e.Transactional || after)
		if e.Change != nil {
			checkChange(t, e.Change)
		}
	case *decoder.Truncate:
		ok = ok && after && len(e.Messages) > 0
	case *decoder.Other:
	default:
		ok = false
	}
	if !ok {
		t.Fatalf("%T %+v, in transaction before %t, after %t", e, e, before, after)
	}
}

// checkChange reads all values of a row: what was decoded can be taken apart.
func checkChange(t *testing.T, c *decoder.Change) {
	t.Helper()
	for _, tuple := range []decoder.Tuple{c.Old, c.New} {
		if n := len(tuple.Values(nil)); tuple != nil && n != len(c.Relation.Columns) {
			t.Fatalf("%d values in %d columns", n, len(c.Relation.Columns))
		}
	}
}

// checkWritten writes an event again: nothing of a frame that is read gets lost.
func checkWritten(t *testing.T, e decoder.Event, data []byte) {
	t.Helper()
	var again []byte
	switch e := e.(type) {
	case *decoder.Begin:
		again = fakewal.Begin(e.XID, e.Commit, e.Time).Data
	case *decoder.Message:
		if e.Change != nil {
			return
		}
		again = fakewal.Message(e.LSN, e.Transactional, e.Prefix, e.Content).Data
		again[1] = data[1] // bits that mean nothing yet
	case *decoder.Commit:
		again = fakewal.Commit(0, e.End, e.Time).Data
		copy(again[1:10], data[1:10]) // not read: flags, and where the record begins
	default:
		return
	}
	if !bytes.Equal(again, data) {
		t.Fatalf("%x\nwas read as %+v, which is\n%x", data, e, again)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add([]byte{})
	f.Add(written{version: 1, kind: 'p', broker: 1, fields: []field{{'x', "ex"}, {'h', `{"a":1}`}}, body: []byte("body")}.bytes())
	f.Add(written{version: 1, kind: 'p', fields: []field{{'o', "origin"}, {'k', "key"}}}.bytes())
	f.Add(written{version: 1, kind: 'n', unclosed: true}.bytes())
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.ContentHex))
	}
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
		const origin = "s-1-0/1"
		head, body := e.SplitWithOrigin(content, origin)
		if len(head)+len(body) > len(content)+4+len(origin) {
			t.Fatalf("split: %d bytes became %d and %d", len(content), len(head), len(body))
		}
		again, err := decoder.ParseEnvelope(slices.Concat(head, body))
		want := read(e)
		if want['o'] == "" {
			want['o'] = origin
		}
		if err != nil || !maps.Equal(read(again), want) || again.Kind != e.Kind || again.BrokerID != e.BrokerID ||
			!bytes.Equal(again.Body, e.Body) {
			t.Fatalf("split: %v, %+v instead of %+v", err, again, e)
		}
	})
}
