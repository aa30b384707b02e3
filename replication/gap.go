package replication

import (
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// Cause tells apart the ways in which a slot can fail, as far as an operator acts
// differently.
type Cause int

// The causes of a SlotError.
const (
	// Unfit is a slot that is not ours, or not one to stream from.
	Unfit Cause = iota
	// Invalidated is a slot whose WAL the server has given up.
	Invalidated
	// Gone is a slot that is not there: dropped, or never on the standby that was promoted.
	Gone
	// OtherSystem is another database system behind the address.
	OtherSystem
	// NoPublication is a publication that is missing, or was when rows were changed.
	NoPublication
)

// Lost tells whether messages behind the slot's position can no longer be had.
func (c Cause) Lost() bool { return c == Invalidated || c == Gone }

// SlotError says that the slot or what belongs to it is not as it must be.
// Trying again does not help; Fix says what does.
type SlotError struct {
	Slot    string
	Cause   Cause
	Problem string
	Fix     string
	Err     error // what the server said; nil if it was not asked for more than a row
}

func (e *SlotError) Error() string {
	return fmt.Sprintf("slot %q %s; %s", e.Slot, e.Problem, e.Fix)
}

func (e *SlotError) Unwrap() error { return e.Err }

// The errors below name the range of WAL that is in question, because nobody can
// tell it afterwards: the slot that knew is gone, or is about to be dropped.

// goneError is for a slot that does not exist. The range begins with what this
// process has confirmed or seen as confirmed.
func goneError(s server, slot string, remembered *memory) error {
	e := &SlotError{
		Slot: slot, Cause: Gone,
		Problem: fmt.Sprintf("does not exist; the server's WAL ends at %s on timeline %d", s.walEnd, s.identity.timeline),
		Fix:     "create it with: pgamqp install; what was published before and is not confirmed cannot be had any more",
	}
	from, timeline := remembered.flushed, remembered.identity.timeline
	if s.confirmed > from {
		from, timeline = s.confirmed, s.identity.timeline // seen while it stood by
	}
	if from == 0 {
		return e
	}
	e.Problem = fmt.Sprintf("does not exist any more; it was confirmed up to %s on timeline %d, the server's WAL ends at %s on timeline %d",
		from, timeline, s.walEnd, s.identity.timeline)
	switch {
	case timeline != s.identity.timeline && s.walEnd < from:
		e.Problem += ": a standby was promoted that had neither the slot nor the last of what is confirmed"
	case timeline != s.identity.timeline:
		e.Problem += ": a standby was promoted that had not got the slot"
	}
	e.Fix = fmt.Sprintf("note both positions, what was published after %s is lost to the brokers; then run: pgamqp install", from)
	return e
}

// lostError is for a slot that the server has invalidated.
func lostError(s server, slot, confirmed string) error {
	return &SlotError{
		Slot: slot, Cause: Invalidated,
		Problem: fmt.Sprintf("was invalidated; messages between %s and %s that are not confirmed are lost", confirmed, s.walEnd),
		Fix:     "note that range, then drop it with: select pg_drop_replication_slot('" + slot + "'); and run: pgamqp install",
	}
}

// stuckError is for a row that was changed while the publication was missing. The
// slot still holds everything, but nothing behind that row can be read with it.
func stuckError(slot, publication string, from, to pglogrepl.LSN, pg *pgconn.PgError) error {
	return &SlotError{
		Slot: slot, Cause: NoPublication, Err: pg,
		Problem: fmt.Sprintf("cannot be read on from %s: %s; publication %q was missing when a row was changed, and the messages between %s and %s (or later) lie behind that",
			from, pg.Message, publication, from, to),
		Fix: "creating it now does not help, because the server looks it up as of then; see docs/operations.md, publication missing",
	}
}

// recognize refuses another system than the one that was seen first. Its positions
// and its slot mean something else, and nothing says that it holds what ours did.
func (m *memory) recognize(s server) error {
	if m.identity.systemID == "" || m.identity.systemID == s.identity.systemID {
		return nil
	}
	return &SlotError{
		Slot: s.identity.slot, Cause: OtherSystem,
		Problem: fmt.Sprintf("belonged to database system %s and was confirmed up to %s; now system %s answers at this address",
			m.identity.systemID, m.flushed, s.identity.systemID),
		Fix: "what the old system holds behind that position is delivered only from there; if the new one is meant, start the daemon again",
	}
}
