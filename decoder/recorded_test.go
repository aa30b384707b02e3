package decoder_test

import (
	"bufio"
	"encoding/hex"
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
	f, _, isFrame, err := decoder.SplitCopyData(data)
	if err != nil || !isFrame {
		tb.Fatalf("frame %t, %v", isFrame, err)
	}
	return f
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
		e, err := d.Decode(frame(t, r.data))
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
	want := []decoder.Event{
		&decoder.Message{ID: id("0/1506480"), LSN: 0x1506480, Prefix: "amqp", Content: []byte("alone")},
		&decoder.Begin{XID: 727, Commit: 0x15064C0, Time: at(one)},
		in(0x1506440, 727, one, "amqp", "first"),
		in(0x15064C0, 727, one, "amqp", "\x00\xff\n"),
		&decoder.Commit{End: 0x15064F0, Time: at(one)},
		&decoder.Begin{XID: 728, Commit: 0x1506528, Time: at(two)},
		in(0x1506528, 728, two, "", ""),
		&decoder.Commit{End: 0x1506558, Time: at(two)},
		&decoder.Begin{XID: 729, Commit: 0x1507250, Time: at(three)},
		&decoder.Other{Type: 'Y'},
		&decoder.Other{Type: 'R'},
		&decoder.Other{Type: 'I'},
		&decoder.Other{Type: 'U'},
		&decoder.Other{Type: 'D'},
		&decoder.Other{Type: 'Y'},
		&decoder.Other{Type: 'R'},
		&decoder.Other{Type: 'T'},
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
		f, k, isFrame, err := decoder.SplitCopyData(data)
		if want := (decoder.Keepalive{End: 0x1506400, ReplyRequested: reply}); err != nil || isFrame || f != nil || k != want {
			t.Errorf("got %+v, frame %t, %v; want %+v", k, isFrame, err, want)
		}
	}
}

// The buffer that a frame came in is used again for the next one.
func TestMessageDoesNotShareTheFramesBytes(t *testing.T) {
	data := frame(t, recordings(t)[1].data)
	e, err := decoder.New(source()).Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if m := e.(*decoder.Message); string(m.Content) != "alone" || m.Prefix != "amqp" {
		t.Errorf("became %+v", m)
	}
}
