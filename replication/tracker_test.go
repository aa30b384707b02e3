package replication

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"
)

// naiveUnit and naiveTracker are the Tracker as one would write it without a
// thought for memory: everything is kept, and counted from the front each time.
type naiveUnit struct {
	end     pglogrepl.LSN
	sealed  bool
	pending int
	since   time.Time
}

func (u *naiveUnit) finished() bool { return u.sealed && u.pending == 0 }

type naiveTracker struct {
	units []*naiveUnit
	from  pglogrepl.LSN
}

func (n *naiveTracker) flushed() pglogrepl.LSN {
	f := n.from
	for _, u := range n.units {
		if !u.finished() {
			break
		}
		f = u.end
	}
	return f
}

func (n *naiveTracker) unfinished() (count int, oldest *naiveUnit) {
	for _, u := range n.units {
		if !u.finished() {
			if count++; oldest == nil {
				oldest = u
			}
		}
	}
	return count, oldest
}

// confirmation is a message in flight, in both worlds.
type confirmation struct {
	unit *naiveUnit
	done func()
}

// comparison drives a Tracker and its model side by side.
type comparison struct {
	real     *Tracker
	model    naiveTracker
	changes  int
	received pglogrepl.LSN
	clock    time.Time

	open      *Unit // of the transaction that is being received
	openModel *naiveUnit
	inFlight  []confirmation
}

func (c *comparison) begin() {
	c.clock = c.clock.Add(time.Second)
	c.open, c.openModel = c.real.Open(c.clock), &naiveUnit{since: c.clock}
	c.model.units = append(c.model.units, c.openModel)
}

func (c *comparison) message() {
	c.inFlight = append(c.inFlight, confirmation{c.openModel, c.open.Add()})
	c.openModel.pending++
}

func (c *comparison) seal(r *rapid.T, end pglogrepl.LSN) {
	unit, model := c.open, c.openModel
	c.open, c.openModel = nil, nil
	c.received, model.end, model.sealed = end, end, true
	if err := unit.Seal(end); err != nil {
		r.Fatal(err)
	}
}

func (c *comparison) keepalive(end pglogrepl.LSN) {
	c.real.Keepalive(end)
	if end > c.received {
		c.received = end
		c.model.units = append(c.model.units, &naiveUnit{end: end, sealed: true})
	}
}

func (c *comparison) confirm(i int) {
	f := c.inFlight[i]
	c.inFlight[i] = c.inFlight[len(c.inFlight)-1]
	c.inFlight = c.inFlight[:len(c.inFlight)-1]
	f.unit.pending--
	f.done()
}

// check compares everything that can be asked, and what must hold inside.
func (c *comparison) check(r *rapid.T, before pglogrepl.LSN, changesBefore int) {
	count, oldest := c.model.unfinished()
	flushed := c.real.Flushed()
	if want := c.model.flushed(); flushed != want {
		r.Fatalf("flushed %s, want %s", flushed, want)
	}
	if got := c.real.Received(); got != c.received || flushed > got || flushed == 0 || flushed < before {
		r.Fatalf("flushed %s (before: %s), received %s, want %s", flushed, before, got, c.received)
	}
	if c.real.Idle() != (count == 0) {
		r.Fatalf("idle %t with %d unfinished units", c.real.Idle(), count)
	}
	if since, ok := c.real.Oldest(); ok != (oldest != nil) || ok && !since.Equal(oldest.since) {
		r.Fatalf("oldest %s, %t, want %+v", since, ok, oldest)
	}
	if flushed != before && c.changes == changesBefore {
		r.Fatalf("flushed moved from %s to %s without a word", before, flushed)
	}
	c.checkList(r, count)
}

// checkList checks the bound of the list: finished units never stand side by side,
// and none stands in front.
func (c *comparison) checkList(r *rapid.T, unfinished int) {
	n := 0
	var last *Unit
	for u := c.real.front; u != nil; last, u = u, u.next {
		n++
		if u.prev != last || u.finished() && (last == nil || last.finished()) {
			r.Fatalf("unit %d of the list: finished %t, behind %+v", n, u.finished(), last)
		}
	}
	if c.real.back != last || n > 2*unfinished {
		r.Fatalf("list of %d for %d unfinished units", n, unfinished)
	}
}

func TestTrackerAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		from := pglogrepl.LSN(rapid.Uint64Range(1, 1<<40).Draw(r, "from"))
		c := &comparison{model: naiveTracker{from: from}, received: from, clock: time.Unix(0, 0)}
		c.real = NewTracker(from, func() { c.changes++ })
		ahead := func() pglogrepl.LSN {
			return c.received + pglogrepl.LSN(rapid.Uint64Range(0, 3).Draw(r, "ahead"))
		}
		before, changes := from, 0
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				c.check(r, before, changes)
				before, changes = c.real.Flushed(), c.changes
			},
			"begin": func(r *rapid.T) {
				if c.open != nil {
					r.Skip("one transaction at a time")
				}
				c.begin()
			},
			"message": func(r *rapid.T) {
				if c.open == nil {
					r.Skip("no transaction")
				}
				c.message()
			},
			"commit": func(r *rapid.T) {
				if c.open == nil {
					r.Skip("no transaction")
				}
				c.seal(r, ahead())
			},
			"lone message": func(r *rapid.T) {
				if c.open != nil {
					r.Skip("in a transaction")
				}
				c.begin()
				c.message()
				c.seal(r, ahead())
			},
			"keepalive": func(r *rapid.T) {
				if c.open != nil {
					r.Skip("in a transaction")
				}
				c.keepalive(ahead())
			},
			"old keepalive": func(r *rapid.T) {
				if c.open != nil {
					r.Skip("in a transaction")
				}
				c.keepalive(c.received - 1)
			},
			"confirm": func(r *rapid.T) {
				if len(c.inFlight) == 0 {
					r.Skip("nothing in flight")
				}
				c.confirm(rapid.IntRange(0, len(c.inFlight)-1).Draw(r, "which"))
			},
			"confirm the oldest": func(r *rapid.T) {
				if len(c.inFlight) == 0 {
					r.Skip("nothing in flight")
				}
				_, oldest := c.model.unfinished()
				for i, f := range c.inFlight {
					if f.unit == oldest {
						c.confirm(i)
						return
					}
				}
			},
		})
	})
}

// The example of ARCHITECTURE.md, section 5, in all orders of confirmation.
func TestFlushedIsTheLongestFinishedPrefix(t *testing.T) {
	for _, c := range []struct {
		name  string
		first string // confirmed first; the other one follows
		want  [2]pglogrepl.LSN
	}{
		{"in order", "N", [2]pglogrepl.LSN{0x200, 0x240}},
		{"the later one first", "A", [2]pglogrepl.LSN{0x50, 0x240}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := NewTracker(0x50, nil)
			lone := tr.Open(time.Time{})
			doneN := lone.Add()
			if err := lone.Seal(0x200); err != nil {
				t.Fatal(err)
			}
			tx := tr.Open(time.Time{})
			doneA := tx.Add()
			if err := tx.Seal(0x230); err != nil {
				t.Fatal(err)
			}
			tr.Keepalive(0x240)
			order := []func(){doneN, doneA}
			if c.first == "A" {
				order = []func(){doneA, doneN}
			}
			for i, done := range order {
				done()
				if got := tr.Flushed(); got != c.want[i] {
					t.Errorf("after %d confirmations: %s, want %s", i+1, got, c.want[i])
				}
			}
		})
	}
}

func TestP03TransactionIsNotFinishedBeforeItsCommit(t *testing.T) {
	tr := NewTracker(0x50, nil)
	tx := tr.Open(time.Time{})
	tx.Add()()
	if got := tr.Flushed(); got != 0x50 || tr.Idle() {
		t.Errorf("flushed %s, idle %t before the commit", got, tr.Idle())
	}
	if err := tx.Seal(0x200); err != nil || tr.Flushed() != 0x200 {
		t.Errorf("flushed %s, %v", tr.Flushed(), err)
	}
}

func TestP10PositionsThatGoBackwardsAreRefused(t *testing.T) {
	tr := NewTracker(0x100, nil)
	if err := tr.Open(time.Time{}).Seal(0x200); err != nil {
		t.Fatal(err)
	}
	if err := tr.Open(time.Time{}).Seal(0x1FF); err == nil {
		t.Error("a unit ended before the one in front of it")
	}
	if got := tr.Flushed(); got != 0x200 {
		t.Errorf("flushed %s", got)
	}
}

// Positions are unsigned and 64 bits wide; as signed numbers these would be negative.
func TestP44PositionsOfTheUpperHalfAreGreater(t *testing.T) {
	const low, high, end = 1<<63 - 0x100, 1<<63 + 0x100, ^pglogrepl.LSN(0)
	tr := NewTracker(low, nil)
	tx := tr.Open(time.Time{})
	done := tx.Add()
	if err := tx.Seal(high); err != nil {
		t.Fatal(err)
	}
	tr.Keepalive(end)
	if got := tr.Flushed(); got != low {
		t.Errorf("flushed %s before the confirmation", got)
	}
	done()
	if got := tr.Flushed(); got != end || tr.Received() != end {
		t.Errorf("flushed %s, received %s, want %s", got, tr.Received(), end)
	}
	if err := tr.Open(time.Time{}).Seal(low); err == nil {
		t.Error("a position of the lower half came behind it")
	}
}

func TestBrokenUseOfTheTrackerPanics(t *testing.T) {
	sealed := func() *Unit {
		u := NewTracker(1, nil).Open(time.Time{})
		if err := u.Seal(2); err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, use := range map[string]func(){
		"start at 0/0":          func() { NewTracker(0, nil) },
		"add behind seal":       func() { sealed().Add() },
		"done without an add":   func() { sealed().done() },
		"done twice for an add": func() { d := NewTracker(1, nil).Open(time.Time{}).Add(); d(); d() },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			use()
		})
	}
}

func TestConfirmationsComeFromManyGoroutines(t *testing.T) {
	const units, messages = 200, 5
	var moved sync.WaitGroup
	tr := NewTracker(1, nil)
	for i := range units {
		u := tr.Open(time.Time{})
		for range messages {
			moved.Go(u.Add())
		}
		if err := u.Seal(pglogrepl.LSN(i + 2)); err != nil {
			t.Fatal(err)
		}
	}
	moved.Wait()
	if got := tr.Flushed(); got != units+1 || !tr.Idle() || tr.front != nil || tr.back != nil {
		t.Errorf("flushed %s, idle %t, front %v", got, tr.Idle(), tr.front)
	}
}
