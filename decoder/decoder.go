package decoder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
)

// FrameError says that a frame could not be read. Head holds its first bytes, at
// most 64, for the log: a position in the stream cannot be passed over without
// losing a message, so this ends the session.
type FrameError struct {
	Head   []byte
	Reason string
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("decode frame %x: %s", e.Head, e.Reason)
}

func frameError(frame []byte, format string, args ...any) error {
	return &FrameError{Head: bytes.Clone(frame[:min(len(frame), 64)]), Reason: fmt.Sprintf(format, args...)}
}

// Decoder reads the frames of one stream, in order. It remembers which transaction is
// open, because protocol version 1 does not repeat it in each message, and what the
// tables look like. It is not safe for concurrent use; a new stream needs a new Decoder.
type Decoder struct {
	source Source
	open   bool
	// changes counts the row changes of the open transaction.
	changes   int
	relations map[uint32]*Relation // by OID; nil until the first

	// The last event of each type. They are kept here because an event of its own would be
	// an allocation for each frame.
	begin   Begin
	commit  Commit
	message Message
	other   Other
}

// New returns a Decoder for a stream of the given source, outside a transaction.
func New(source Source) *Decoder { return &Decoder{source: source} }

// InTransaction tells whether a Begin was read whose Commit was not.
func (d *Decoder) InTransaction() bool { return d.open }

// Decode reads one frame, whose record starts at start. The frame may be overwritten afterwards; the event, but not
// what it refers to, is overwritten by the next Decode. An error is a *FrameError; the
// stream cannot be used after it.
func (d *Decoder) Decode(frame []byte, start pglogrepl.LSN) (Event, error) {
	if len(frame) == 0 {
		return nil, frameError(frame, "it is empty")
	}
	switch frame[0] {
	case 'B':
		return d.decodeBegin(frame)
	case 'C':
		return d.decodeCommit(frame)
	case 'M':
		return d.decodeMessage(frame)
	case 'R':
		return d.decodeRelation(frame)
	case 'I', 'U', 'D':
		return d.decodeChange(frame, start)
	case 'T':
		return d.decodeTruncate(frame, start)
	case 'Y', 'O':
		d.other = Other{Type: frame[0]}
		return &d.other, nil
	default:
		return nil, frameError(frame, "unknown type %q; streamed and two-phase transactions are not asked for", frame[0])
	}
}

func (d *Decoder) decodeBegin(frame []byte) (Event, error) {
	if len(frame) != 21 {
		return nil, frameError(frame, "begin has %d bytes, not 21", len(frame))
	}
	if d.open {
		return nil, frameError(frame, "begin inside transaction %d", d.begin.XID)
	}
	commit := lsnAt(frame, 1)
	if commit == 0 {
		return nil, frameError(frame, "begin with commit position 0/0")
	}
	d.open, d.changes = true, 0
	d.begin = Begin{XID: binary.BigEndian.Uint32(frame[17:]), Commit: commit, Time: timeAt(frame, 9)}
	return &d.begin, nil
}

func (d *Decoder) decodeCommit(frame []byte) (Event, error) {
	if len(frame) != 26 {
		return nil, frameError(frame, "commit has %d bytes, not 26", len(frame))
	}
	if !d.open {
		return nil, frameError(frame, "commit without begin")
	}
	end := lsnAt(frame, 10)
	if end <= d.begin.Commit {
		return nil, frameError(frame, "commit ends at %s, before its record at %s", end, d.begin.Commit)
	}
	d.open = false
	d.commit = Commit{End: end, Time: timeAt(frame, 18)}
	return &d.commit, nil
}

func (d *Decoder) decodeMessage(frame []byte) (Event, error) {
	const fixed = 1 + 1 + 8
	if len(frame) < fixed {
		return nil, frameError(frame, "message has only %d bytes", len(frame))
	}
	prefix, rest, found := bytes.Cut(frame[fixed:], []byte{0})
	if !found {
		return nil, frameError(frame, "message prefix has no end")
	}
	if len(rest) < 4 {
		return nil, frameError(frame, "message has no content length")
	}
	content := rest[4:]
	if n := binary.BigEndian.Uint32(rest); uint64(n) != uint64(len(content)) {
		return nil, frameError(frame, "message content has %d bytes, %d announced", len(content), n)
	}
	m := Message{
		LSN:           lsnAt(frame, 2),
		Transactional: frame[1]&1 != 0,
		Prefix:        prefixOf(prefix),
		Content:       bytes.Clone(content),
	}
	switch {
	case m.LSN == 0:
		return nil, frameError(frame, "message with position 0/0")
	case m.Transactional && !d.open:
		return nil, frameError(frame, "transactional message outside a transaction")
	case m.Transactional:
		m.XID, m.CommitTime, m.Commit = d.begin.XID, d.begin.Time, d.begin.Commit
	}
	m.ID = d.source.ID(m.LSN)
	d.message = m
	return &d.message, nil
}

// prefixOf makes no string for the prefix that almost all messages have.
func prefixOf(b []byte) string {
	if string(b) == Prefix {
		return Prefix
	}
	return string(b)
}

// Keepalive is the server's own report: all of the WAL up to End that concerns us
// has been sent.
type Keepalive struct {
	End            pglogrepl.LSN
	ReplyRequested bool
}

var errCopyData = errors.New("unknown CopyData message")

// CopyData is one CopyData message of the stream: a frame or a keepalive.
type CopyData struct {
	// Frame is a part of the message; nil for a keepalive. Start is where its record starts.
	Frame []byte
	Start pglogrepl.LSN
	// Keepalive is set if Frame is nil.
	Keepalive Keepalive
}

// SplitCopyData reads the header of a CopyData message.
func SplitCopyData(data []byte) (CopyData, error) {
	switch {
	case len(data) > 25 && data[0] == 'w':
		return CopyData{Frame: data[25:], Start: lsnAt(data, 1)}, nil
	case len(data) == 18 && data[0] == 'k':
		return CopyData{Keepalive: Keepalive{End: lsnAt(data, 1), ReplyRequested: data[17] != 0}}, nil
	}
	return CopyData{}, fmt.Errorf("%w: %w", errCopyData, frameError(data, "%d bytes", len(data)))
}

func lsnAt(b []byte, i int) pglogrepl.LSN {
	return pglogrepl.LSN(binary.BigEndian.Uint64(b[i:]))
}

// timeAt reads microseconds since 2000-01-01, the zero of PostgreSQL's timestamps.
func timeAt(b []byte, i int) time.Time {
	const y2000 = 946684800 * 1e6
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b[i:])) + y2000).UTC()
}
