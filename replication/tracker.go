package replication

import (
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
)

// Tracker turns confirmations, in any order, into the one position to report. It
// is the only code that moves that position. It does no I/O and reads no clock.
//
// Invariants:
//   - the ends of sealed units never decrease, in stream order;
//   - flushed never decreases, is never zero and never beyond what was received;
//   - flushed is the end of the longest run of finished units from the front. The
//     highest confirmed position would skip what is still open below it.
//
// Each end is exact, as the server gave it: TransactionEndLSN for a transaction,
// the message's own LSN for a message outside of any, the WAL end of a keepalive
// when nothing before it is open. One more skips an adjacent unit.
type Tracker struct {
	mu sync.Mutex // guards everything here and in every Unit

	// front and back are the ends of a list of the unfinished units and what stands
	// between them, oldest first.
	// Invariant: the front is unfinished, and two finished units never stand side by
	// side. So the length is at most twice the number of unfinished units, however
	// many others are finished behind one that is not.
	front, back *Unit

	flushed  pglogrepl.LSN
	received pglogrepl.LSN
	changed  func()
}

// Unit is what the server confirms as a whole: a transaction, or one message
// outside of any.
type Unit struct {
	t          *Tracker
	prev, next *Unit
	since      time.Time
	end        pglogrepl.LSN // zero until sealed
	pending    int           // added and not yet done
	done       func()
}

// NewTracker returns a Tracker that reports from, the slot's confirmed position,
// until something is finished. from must not be zero. changed, if not nil, is
// called without locks held each time the flushed position has moved; it must not
// block.
func NewTracker(from pglogrepl.LSN, changed func()) *Tracker {
	if from == 0 {
		panic("replication: tracker from 0/0: the server would take it for everything received")
	}
	return &Tracker{flushed: from, received: from, changed: changed}
}

// Open begins a unit behind all earlier ones. since is when it was committed, for
// the lag.
func (t *Tracker) Open(since time.Time) *Unit {
	u := &Unit{t: t, since: since}
	u.done = u.finishOne
	t.mu.Lock()
	defer t.mu.Unlock()
	t.append(u)
	return u
}

// Add counts one more message of the unit. The returned func says that it is
// safe; it is the same for the whole unit, must be called once for each Add, and
// may be called from any goroutine. Add must not be called after Seal.
func (u *Unit) Add() (done func()) {
	u.t.mu.Lock()
	defer u.t.mu.Unlock()
	if u.end != 0 {
		panic("replication: message added to a sealed unit")
	}
	u.pending++
	return u.done
}

// Seal says that no more messages follow and that the unit ends at end. An error
// means that the server's positions went backwards; nothing may be reported then.
func (u *Unit) Seal(end pglogrepl.LSN) error {
	t := u.t
	t.mu.Lock()
	if end < t.received {
		defer t.mu.Unlock()
		return fmt.Errorf("unit ends at %s, behind %s which was received before", end, t.received)
	}
	u.end = end
	t.received = end
	t.unlockAfter(u)
	return nil
}

// finishOne is a message's done func.
func (u *Unit) finishOne() {
	t := u.t
	t.mu.Lock()
	if u.pending == 0 {
		t.mu.Unlock()
		panic("replication: more messages done than added")
	}
	u.pending--
	t.unlockAfter(u)
}

// Keepalive enters the server's WAL end as an empty unit behind all others. It
// must not be called between Begin and Commit: what is left of the transaction
// lies below it. A position that is not new is ignored.
func (t *Tracker) Keepalive(end pglogrepl.LSN) {
	t.mu.Lock()
	if end <= t.received {
		t.mu.Unlock()
		return
	}
	t.received = end
	u := &Unit{t: t, end: end}
	t.append(u)
	t.unlockAfter(u)
}

// append adds u at the back. The lock is held.
func (t *Tracker) append(u *Unit) {
	if t.back == nil {
		t.front = u
	} else {
		u.prev, t.back.next = t.back, u
	}
	t.back = u
}

// remove takes u out of the list. The lock is held.
func (t *Tracker) remove(u *Unit) {
	if u.prev == nil {
		t.front = u.next
	} else {
		u.prev.next = u.next
	}
	if u.next == nil {
		t.back = u.prev
	} else {
		u.next.prev = u.prev
	}
	u.prev, u.next = nil, nil
}

// finished tells whether nothing of the unit is missing. The lock is held.
func (u *Unit) finished() bool { return u.end != 0 && u.pending == 0 }

// unlockAfter restores the invariants after a change of u, gives up the lock and
// tells whoever wants to know that the flushed position moved.
func (t *Tracker) unlockAfter(u *Unit) {
	moved := false
	if u.finished() {
		if p := u.prev; p != nil && p.finished() {
			p.end = u.end
			t.remove(u)
			u = p
		}
		if n := u.next; n != nil && n.finished() {
			u.end = n.end
			t.remove(n)
		}
		if u == t.front {
			t.flushed = u.end
			t.remove(u)
			moved = true
		}
	}
	t.mu.Unlock()
	if moved && t.changed != nil {
		t.changed()
	}
}

// Flushed returns the position to report: all before it is safe.
func (t *Tracker) Flushed() pglogrepl.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flushed
}

// Received returns the highest position received so far.
func (t *Tracker) Received() pglogrepl.LSN {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.received
}

// Idle tells whether everything received is finished.
func (t *Tracker) Idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.front == nil
}

// Oldest returns when the oldest unfinished unit was committed, and false if
// there is none.
func (t *Tracker) Oldest() (since time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.front == nil {
		return time.Time{}, false
	}
	return t.front.since, true
}
