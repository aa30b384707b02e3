package fakewal

import (
	"slices"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
)

// commitSize is the size of a commit record.
const commitSize = 48

// Unit is what a slot sends, and sends again, as a whole: a transaction, or one
// message outside of any.
type Unit struct {
	// Start is where the deciding record begins: the commit record, or the record
	// of the single message. It is where the unit before it may end.
	Start pglogrepl.LSN
	// End is where the deciding record ends: the position that confirms the unit.
	End pglogrepl.LSN
	// Messages are the positions of its messages, in order.
	Messages []pglogrepl.LSN
	Frames   []Frame
}

// Log is a write-ahead log seen through a logical slot. Records follow each other
// without a gap, so a position that is one too high skips something. Its methods
// may be called from any goroutine.
type Log struct {
	mu    sync.Mutex // covers the fields below and every open Tx
	end   pglogrepl.LSN
	xid   uint32
	units []Unit
}

// NewLog is an empty log whose next record begins at this position.
func NewLog(at pglogrepl.LSN) *Log { return &Log{end: at, xid: 700} }

// Emit logs a message outside of any transaction.
func (l *Log) Emit(prefix string, content []byte) Unit {
	l.mu.Lock()
	defer l.mu.Unlock()
	start := l.end
	lsn := l.record(prefix, content)
	u := Unit{start, lsn, []pglogrepl.LSN{lsn}, []Frame{Message(lsn, false, prefix, content)}}
	l.units = append(l.units, u)
	return u
}

// Pad logs something a slot never sends: changes to other tables, say.
func (l *Log) Pad(size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end += pglogrepl.LSN((size + 7) &^ 7)
}

// End is where the log ends; a keepalive of an idle server carries it.
func (l *Log) End() pglogrepl.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// From is what a server sends from a confirmed position on: the units whose
// deciding record begins there or later, in the order they were decided.
func (l *Log) From(confirmed pglogrepl.LSN) []Unit {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.units, func(u Unit) bool { return u.Start >= confirmed })
	if i < 0 {
		return nil
	}
	return slices.Clone(l.units[i:])
}

// record advances the log by the record of one message, and gives its end.
func (l *Log) record(prefix string, content []byte) pglogrepl.LSN {
	size := 50 + len(prefix) + 1 + len(content) // the heads of record, data and message
	l.end += pglogrepl.LSN((size + 7) &^ 7)
	return l.end
}

// Tx is an open transaction. Several may be open at once; the log has them in
// the order of their commits.
type Tx struct {
	log      *Log
	messages []pglogrepl.LSN
	frames   []Frame
}

// Begin opens a transaction.
func (l *Log) Begin() *Tx { return &Tx{log: l} }

// Emit logs a transactional message and gives its position.
func (t *Tx) Emit(prefix string, content []byte) pglogrepl.LSN {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	lsn := t.log.record(prefix, content)
	t.messages = append(t.messages, lsn)
	t.frames = append(t.frames, Message(lsn, true, prefix, content))
	return lsn
}

// Commit ends the transaction, which must not be used again. One that is never
// committed is rolled back: it never appears. One without messages appears as
// Begin and Commit, as PostgreSQL 14 sends it.
func (t *Tx) Commit() Unit {
	l := t.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.xid++
	u := Unit{Start: l.end, End: l.end + commitSize, Messages: t.messages}
	l.end = u.End
	begin := Begin(l.xid, u.Start, time.Now())
	if len(t.messages) > 0 {
		begin.WALStart = t.messages[0]
	}
	u.Frames = append(append([]Frame{begin}, t.frames...), Commit(u.Start, u.End, time.Now()))
	l.units = append(l.units, u)
	return u
}
