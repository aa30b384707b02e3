package decoder_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// recording is a CopyData message of testdata/frames.txt.
type recording struct {
	kind string
	data []byte
}

// recordings reads what a real server sent.
func recordings(tb testing.TB) []recording {
	tb.Helper()
	f, err := os.Open("testdata/frames.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var out []recording
	for lines := bufio.NewScanner(f); lines.Scan(); {
		kind, text, ok := strings.Cut(lines.Text(), " ")
		if !ok || kind == "#" {
			continue
		}
		data, err := hex.DecodeString(text)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, recording{kind, data})
	}
	if len(out) < 20 {
		tb.Fatalf("only %d recordings", len(out))
	}
	return out
}

// frame takes the frame out of a CopyData message.
func frame(tb testing.TB, data []byte) []byte {
	tb.Helper()
	return copyData(tb, data).Frame
}

func copyData(tb testing.TB, data []byte) decoder.CopyData {
	tb.Helper()
	c, err := decoder.SplitCopyData(data)
	if err != nil || c.Frame == nil {
		tb.Fatalf("%+v, %v", c, err)
	}
	return c
}

func source() decoder.Source {
	return decoder.Source{SystemID: "7423456789012345678", Timeline: 1}
}

func at(micros int64) time.Time { return time.UnixMicro(946684800_000000 + micros).UTC() }

// kept copies an event, which the next one overwrites.
func kept(e decoder.Event) decoder.Event {
	switch e := e.(type) {
	case *decoder.Begin:
		return new(*e)
	case *decoder.Commit:
		return new(*e)
	case *decoder.Message:
		return new(*e)
	case *decoder.Truncate:
		return e
	case *decoder.Other:
		return new(*e)
	}
	return nil
}

func TestP11RecordedStreamIsReadAsPostgreSQLMeantIt(t *testing.T) {
	var got []decoder.Event
	d := decoder.New(source())
	for _, r := range recordings(t) {
		if r.kind == "k" {
			continue
		}
		c := copyData(t, r.data)
		e, err := d.Decode(c.Frame, c.Start)
		if err != nil {
			t.Fatalf("%x: %v", r.data, err)
		}
		got = append(got, kept(e))
	}
	const one, two, three, four = 0x30401f612334e, 0x30401f61233b5, 0x30401f612362f, 0x30401f6123769
	id := func(lsn string) string { return "7423456789012345678-1-" + lsn }
	in := func(lsn pglogrepl.LSN, xid uint32, micros int64, prefix, content string) *decoder.Message {
		return &decoder.Message{
			ID: id(lsn.String()), LSN: lsn, Transactional: true, XID: xid, CommitTime: at(micros),
			Prefix: prefix, Content: []byte(content),
		}
	}
	table := &decoder.Relation{OID: 0x4005, Schema: "public", Name: "t", Identity: 'd', Columns: []decoder.Column{
		{Name: "id", Key: true, Type: 23, Modifier: -1}, {Name: "m", Type: 0x4001, Modifier: -1}, {Name: "x", Type: 25, Modifier: -1},
	}}
	const commitThree = 0x1507250
	change := func(start pglogrepl.LSN, c decoder.Change) *decoder.Message {
		c.Relation = table
		return &decoder.Message{
			ID: fmt.Sprintf("%s-%d", id("0/1507250"), c.Ordinal), LSN: start, Transactional: true, XID: 729,
			CommitTime: at(three), Commit: commitThree, Change: &c,
		}
	}
	row := func(x string) decoder.Tuple {
		return decoder.Tuple("t\x00\x00\x00\x011t\x00\x00\x00\x02okt\x00\x00\x00\x01" + x)
	}
	want := []decoder.Event{
		&decoder.Message{ID: id("0/1506480"), LSN: 0x1506480, Prefix: "amqp", Content: []byte("alone")},
		&decoder.Begin{XID: 727, Commit: 0x15064C0, Time: at(one)},
		in(0x1506440, 727, one, "amqp", "first"),
		in(0x15064C0, 727, one, "amqp", "\x00\xff\n"),
		&decoder.Commit{End: 0x15064F0, Time: at(one)},
		&decoder.Begin{XID: 728, Commit: 0x1506528, Time: at(two)},
		in(0x1506528, 728, two, "", ""),
		&decoder.Commit{End: 0x1506558, Time: at(two)},
		&decoder.Begin{XID: 729, Commit: commitThree, Time: at(three)},
		&decoder.Other{Type: 'Y'},
		&decoder.Other{Type: 'R'},
		change(0x1506558, decoder.Change{Op: decoder.OpInsert, New: row("a"), Ordinal: 1}),
		change(0x1506640, decoder.Change{Op: decoder.OpUpdate, New: row("b"), Ordinal: 2}),
		change(0x1506690, decoder.Change{Op: decoder.OpDelete, Old: decoder.Tuple("t\x00\x00\x00\x011nn"), KeyOnly: true, Ordinal: 3}),
		&decoder.Other{Type: 'Y'},
		&decoder.Other{Type: 'R'},
		&decoder.Truncate{Messages: []decoder.Message{*change(0x1507220, decoder.Change{Op: decoder.OpTruncate, Ordinal: 4})}},
		&decoder.Commit{End: 0x15073C0, Time: at(three)},
		&decoder.Begin{XID: 731, Commit: 0x1507660, Time: at(four)},
		&decoder.Other{Type: 'O'},
		in(0x1507660, 731, four, "amqp", "from an origin"),
		&decoder.Commit{End: 0x15076A8, Time: at(four)},
	}
	var commit pglogrepl.LSN // of the transaction that a message is in
	for _, e := range want {
		switch e := e.(type) {
		case *decoder.Begin:
			commit = e.Commit
		case *decoder.Message:
			if e.Transactional {
				e.Commit = commit
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestRecordedKeepaliveIsRead(t *testing.T) {
	data := recordings(t)[0].data
	for _, reply := range []bool{false, true} {
		data[17] = 0
		if reply {
			data[17] = 1
		}
		c, err := decoder.SplitCopyData(data)
		if want := (decoder.Keepalive{End: 0x1506400, ReplyRequested: reply}); err != nil || c.Frame != nil || c.Keepalive != want {
			t.Errorf("got %+v, %v; want %+v", c, err, want)
		}
	}
}

// The buffer that a frame came in is used again for the next one.
func TestMessageDoesNotShareTheFramesBytes(t *testing.T) {
	data := frame(t, recordings(t)[1].data)
	e, err := decoder.New(source()).Decode(data, 0x100)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if m := e.(*decoder.Message); string(m.Content) != "alone" || m.Prefix != "amqp" {
		t.Errorf("became %+v", m)
	}
}
