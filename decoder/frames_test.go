package decoder_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

func begin(commit pglogrepl.LSN) []byte { return fakewal.Begin(7, commit, time.Now()).Data }

func commit(commit, end pglogrepl.LSN) []byte {
	return fakewal.Commit(commit, end, time.Now()).Data
}

func message(lsn pglogrepl.LSN, transactional bool) []byte {
	return fakewal.Message(lsn, transactional, "amqp", []byte("content")).Data
}

// opened is a Decoder inside a transaction whose commit record is at 0/200.
func opened(tb testing.TB) *decoder.Decoder {
	tb.Helper()
	d := decoder.New(source())
	if _, err := d.Decode(begin(0x200), 0x100); err != nil {
		tb.Fatal(err)
	}
	return d
}

// describing is opened, and knows the table of the recordings.
func describing(tb testing.TB) *decoder.Decoder {
	tb.Helper()
	d := opened(tb)
	for _, r := range recordings(tb) {
		if r.kind != "R" {
			continue
		}
		if _, err := d.Decode(frame(tb, r.data), 0); err != nil {
			tb.Fatal(err)
		}
		return d
	}
	tb.Fatal("the recordings describe no table")
	return nil
}

func TestH11CutOffFramesAreErrors(t *testing.T) {
	for _, r := range recordings(t) {
		if !strings.Contains("BCMRIUDT", r.kind) {
			continue // not read beyond the type
		}
		whole := frame(t, r.data)
		for n := range whole {
			for name, d := range map[string]*decoder.Decoder{"outside": decoder.New(source()), "inside": describing(t)} {
				e, err := d.Decode(whole[:n], 0x100)
				var bad *decoder.FrameError
				if !errors.As(err, &bad) || !bytes.Equal(bad.Head, whole[:min(n, 64)]) {
					t.Errorf("%s: %d of %d bytes of a %s frame: %v, %v", name, n, len(whole), r.kind, e, err)
				}
			}
		}
	}
}

func TestFramesWithLeftoverBytesAreErrors(t *testing.T) {
	for _, r := range recordings(t) {
		if !strings.Contains("BCMRIUDT", r.kind) {
			continue
		}
		long := append(bytes.Clone(frame(t, r.data)), 0)
		for _, d := range []*decoder.Decoder{decoder.New(source()), describing(t)} {
			if e, err := d.Decode(long, 0x100); err == nil {
				t.Errorf("%x was read as %v", long, e)
			}
		}
	}
}

func TestFramesOutOfPlaceAreErrors(t *testing.T) {
	zeroMessage := message(0, false)
	table := []byte("R\x00\x00\x00\x01s\x00t\x00d\x00\x01\x01c\x00\x00\x00\x00\x17\xff\xff\xff\xff") // one column
	for _, c := range []struct {
		name   string
		before [][]byte
		frame  []byte
		say    string
	}{
		{"commit without begin", nil, commit(0x200, 0x230), "without begin"},
		{"second commit", [][]byte{begin(0x200), commit(0x200, 0x230)}, commit(0x240, 0x270), "without begin"},
		{"begin in begin", [][]byte{begin(0x200)}, begin(0x300), "inside transaction 7"},
		{"transactional message outside", nil, message(0x100, true), "outside a transaction"},
		{"transactional message behind the commit", [][]byte{begin(0x200), commit(0x200, 0x230)}, message(0x240, true), "outside a transaction"},
		{"begin at 0/0", nil, begin(0), "0/0"},
		{"message at 0/0", nil, zeroMessage, "0/0"},
		{"commit that ends where its record starts", [][]byte{begin(0x200)}, commit(0x200, 0x200), "before its record"},
		{"commit at 0/0", [][]byte{begin(0x200)}, commit(0, 0), "before its record"},
		{"nothing", nil, nil, "empty"},
		{"stream start of protocol 2", nil, []byte{'S', 0, 0, 0, 1, 1}, `'S'`},
		{"prepare of two-phase", nil, append([]byte{'P'}, make([]byte, 40)...), `'P'`},
		{"unknown", nil, []byte{0xff}, "unknown type"},
		{"row outside", nil, []byte("I\x00\x00\x00\x01N\x00\x00"), "outside a transaction"},
		{"row of an unknown table", [][]byte{begin(0x200)}, []byte("I\x00\x00\x00\x01N\x00\x00"), "not described"},
		{"truncate outside", nil, []byte("T\x00\x00\x00\x01\x00\x00\x00\x00\x01"), "outside a transaction"},
		{"truncate of an unknown table", [][]byte{begin(0x200)}, []byte("T\x00\x00\x00\x01\x00\x00\x00\x00\x01"), "not described"},
		{"truncate of nothing", [][]byte{begin(0x200)}, []byte("T\x00\x00\x00\x00\x00"), "not as long"},
		{"insert with an old row", [][]byte{begin(0x200), table}, []byte("I\x00\x00\x00\x01K\x00\x01n"), "known kind"},
		{"delete with a new row", [][]byte{begin(0x200), table}, []byte("D\x00\x00\x00\x01N\x00\x01n"), "known kind"},
		{"update with an old row only", [][]byte{begin(0x200), table}, []byte("U\x00\x00\x00\x01K\x00\x01n"), "known kind"},
		{"row with another number of columns", [][]byte{begin(0x200), table}, []byte("I\x00\x00\x00\x01N\x00\x02nn"), "not as long"},
		{"row with a binary value", [][]byte{begin(0x200), table}, []byte("I\x00\x00\x00\x01N\x00\x01b\x00\x00\x00\x00"), "not as long"},
	} {
		d := decoder.New(source())
		for _, f := range c.before {
			if _, err := d.Decode(f, 0x100); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		e, err := d.Decode(c.frame, 0x100)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, %v; want an error with %q", c.name, e, err, c.say)
		}
	}
}

// It stands in the WAL between the messages of a transaction, but arrives before.
func TestLoneMessageBelongsToNoTransaction(t *testing.T) {
	for name, d := range map[string]*decoder.Decoder{"outside": decoder.New(source()), "inside": opened(t)} {
		e, err := d.Decode(message(0x100, false), 0x100)
		m, ok := e.(*decoder.Message)
		if err != nil || !ok || m.Transactional || m.XID != 0 || !m.CommitTime.IsZero() || m.LSN != 0x100 {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

func TestInTransactionFollowsBeginAndCommit(t *testing.T) {
	d := decoder.New(source())
	for i, step := range []struct {
		frame []byte
		want  bool
	}{
		{message(0x90, false), false},
		{begin(0x200), true},
		{message(0x100, true), true},
		{[]byte{'Y'}, true},
		{commit(0x200, 0x230), false},
		{begin(0x300), true},
		{commit(0x300, 0x330), false}, // empty, as PostgreSQL 14 sends it
	} {
		if _, err := d.Decode(step.frame, 0x100); err != nil {
			t.Fatal(err)
		}
		if d.InTransaction() != step.want {
			t.Errorf("after frame %d: %t", i, d.InTransaction())
		}
	}
}

func TestMessageContentIsWhatItsLengthSays(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 65536, 1 << 20} {
		content := bytes.Repeat([]byte{0}, n)
		e, err := decoder.New(source()).Decode(fakewal.Message(0x100, false, "p", content).Data, 0x100)
		if m, ok := e.(*decoder.Message); err != nil || !ok || !bytes.Equal(m.Content, content) || m.Content == nil && n > 0 {
			t.Errorf("%d bytes: %d, %v", n, len(m.Content), err)
		}
	}
	lies := message(0x100, false)
	binary.BigEndian.PutUint32(lies[15:], 0xffffffff)
	if e, err := decoder.New(source()).Decode(lies, 0x100); err == nil {
		t.Errorf("announced 4 GiB: %v", e)
	}
}

func TestFrameErrorShowsTheFramesHeadOnly(t *testing.T) {
	secret := append(bytes.Repeat([]byte{'x'}, 64), "secret"...)
	_, err := decoder.New(source()).Decode(secret, 0x100)
	var bad *decoder.FrameError
	if !errors.As(err, &bad) || len(bad.Head) != 64 || !strings.HasPrefix(err.Error(), "decode frame 7878") {
		t.Errorf("got %v", err)
	}
}

func TestCopyDataOfAnyOtherShapeIsAnError(t *testing.T) {
	w := append([]byte{'w'}, make([]byte, 24)...)
	k := append([]byte{'k'}, make([]byte, 17)...)
	for name, data := range map[string][]byte{
		"nothing":                  nil,
		"a header without a frame": w,
		"a short header":           w[:10],
		"a short keepalive":        k[:17],
		"a long keepalive":         append(bytes.Clone(k), 0),
		"an unknown type":          append([]byte{'z'}, make([]byte, 30)...),
	} {
		var bad *decoder.FrameError
		if f, err := decoder.SplitCopyData(data); !errors.As(err, &bad) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}
