package decoder

import (
	"time"

	"github.com/jackc/pglogrepl"
)

// Event is one frame of the stream: *Begin, *Commit, *Message, *Truncate or *Other. Nothing
// else implements it.
type Event interface{ event() }

// Begin opens a transaction. All its messages and its Commit follow without
// anything of another transaction in between.
type Begin struct {
	XID uint32
	// Commit is the start of the commit record. It decides whether the server sends
	// the transaction again (it does if the confirmed position is not beyond it), but
	// it is never a position to report: reporting it repeats the transaction.
	Commit pglogrepl.LSN
	// Time is when the transaction was committed, by the server's clock.
	Time time.Time
}

// Commit ends the transaction that the last Begin opened.
type Commit struct {
	// End is the end of the commit record, the only position of a transaction that
	// may be reported. One more would skip a unit that follows directly.
	End  pglogrepl.LSN
	Time time.Time
}

// Message is what pg_logical_emit_message wrote, or the change of a row.
type Message struct {
	// ID is the same on every redelivery: system identifier, timeline and LSN; for a change
	// the LSN of its transaction's commit record, and its ordinal.
	ID string
	// LSN is the end of the message's record, as the SQL function returned it. Unique
	// within a timeline. For a non-transactional message it is the position to report. For a
	// change it is the start of its record, which may hold several rows.
	LSN           pglogrepl.LSN
	Transactional bool
	// XID and CommitTime are those of the transaction; zero outside of any.
	XID        uint32
	CommitTime time.Time
	// Commit is the start of the transaction's commit record, as in its Begin; zero
	// outside of any.
	Commit pglogrepl.LSN
	Prefix string
	// Content belongs to the receiver; it is not used by the decoder again.
	Content []byte
	// Change is set instead of Prefix and Content for a change of a row.
	Change *Change
}

// Size is about what the message takes in memory, in bytes.
func (m *Message) Size() int {
	n := len(m.Content)
	if m.Change != nil {
		n += len(m.Change.Old) + len(m.Change.New)
	}
	return n
}

// Truncate is the changes that one TRUNCATE is for its tables.
type Truncate struct{ Messages []Message }

// Other is a frame that nothing follows from: a relation, type or origin frame.
type Other struct{ Type byte }

func (*Begin) event()    {}
func (*Commit) event()   {}
func (*Message) event()  {}
func (*Truncate) event() {}
func (*Other) event()    {}
