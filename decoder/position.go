package decoder

import (
	"cmp"

	"github.com/jackc/pglogrepl"
)

// Position is a place in the order in which the server sends messages. It is the
// same for each slot of a database, as long as the timeline is: units come in the
// order of their deciding records (the commit record, or the message's own when it
// is outside a transaction), and the messages of a transaction in the order in which
// they were written. An LSN alone cannot say it: a transaction's messages are older
// than units that came before.
//
// A Position is for comparison only, never for a report.
type Position struct {
	// Unit is the start of the transaction's commit record; for a lone message its LSN,
	// which is the end of its record.
	Unit        pglogrepl.LSN
	Transaction bool
	// LSN is the message's own.
	LSN pglogrepl.LSN
	// Ordinal is that of a row change, 0 for a message: the rows of one record, and a
	// message that ends where one starts, come in this order.
	Ordinal int
}

// Position returns the message's place in the stream.
func (m *Message) Position() Position {
	if m.Transactional {
		p := Position{Unit: m.Commit, Transaction: true, LSN: m.LSN}
		if m.Change != nil {
			p.Ordinal = m.Change.Ordinal
		}
		return p
	}
	return Position{Unit: m.LSN, LSN: m.LSN}
}

// PositionAt returns the place of a stream that starts at a slot's confirmed
// position: units up to it are not sent, those behind it are.
func PositionAt(confirmed pglogrepl.LSN) Position {
	return Position{Unit: confirmed, LSN: confirmed}
}

// Compare returns -1 if p comes before q, 1 if it comes after, 0 if they are the same.
func (p Position) Compare(q Position) int {
	if c := p.CompareUnit(q); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(p.LSN, q.LSN), cmp.Compare(p.Ordinal, q.Ordinal))
}

// CompareUnit is Compare for the units that the positions lie in.
func (p Position) CompareUnit(q Position) int {
	if c := cmp.Compare(p.Unit, q.Unit); c != 0 {
		return c
	}
	// A lone message that ends where a commit record starts comes before it.
	switch {
	case p.Transaction == q.Transaction:
		return 0
	case q.Transaction:
		return -1
	}
	return 1
}

// ConfirmedBy tells whether a slot whose confirmed position is flushed has given up
// the unit at p, and so all before it. A commit record that starts at flushed has
// not; a lone message that ends there has.
func (p Position) ConfirmedBy(flushed pglogrepl.LSN) bool {
	if p.Transaction {
		return flushed > p.Unit
	}
	return flushed >= p.Unit
}
