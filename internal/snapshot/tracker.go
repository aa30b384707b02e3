package snapshot

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
)

// Tracker knows what the main stream tells of the table that is being read. The stream calls
// Changed and Take, all streams Moved, Noted, SetBack and Restarted, and the Taker all else.
type Tracker struct {
	watching  atomic.Bool // whether a table is read; what all rows of other times cost
	following atomic.Bool // whether followed has any

	mu            sync.Mutex // guards all below
	schema, table string
	// unseen are transactions that have changed the table, as far as the stream has come, and that no
	// snapshot is known to show.
	unseen map[uint32]bool
	last   *Visibility // the last snapshot that is known; what one shows all later ones do; nil if none
	chunk  *Chunk      // that is read, or waits for its place; nil if none
	number int         // of chunks that were begun, for their tokens
	// followed are the snapshots that are not over.
	followed map[int32]*moves
}

// watch begins to follow a table, or with empty names ends it.
func (t *Tracker) watch(schema, table string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.schema, t.table = schema, table
	t.unseen, t.last, t.chunk = make(map[uint32]bool), nil, nil
	if t.followed == nil {
		t.followed = make(map[int32]*moves)
	}
	t.watching.Store(table != "")
}

// Changed is told of each change in the order of the stream, before it is published.
func (t *Tracker) Changed(m *decoder.Message) {
	if !t.watching.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rel := m.Change.Relation
	if rel.Name != t.table || rel.Schema != t.schema {
		return
	}
	if t.last == nil || !t.last.Shows(m.XID) {
		t.unseen[m.XID] = true
	}
	if t.chunk != nil {
		t.chunk.note(m.XID, m.Change)
	}
}

// begin makes a chunk of a snapshot, which keeps what the stream tells from now on. prefix makes its token
// one that no other process has. With again the chunk is of rows that must be read once more, if there are any.
func (t *Tracker) begin(prefix string, rel *decoder.Relation, s *catalog.Snapshot, again bool) *Chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	c := &Chunk{
		Relation: rel, token: prefix + "-" + strconv.Itoa(t.number), snapshot: s.ID,
		before: slices.Collect(maps.Keys(t.unseen)), settled: make(chan Outcome, 1),
	}
	f := t.follow(s.ID, rel.Schema, rel.Name)
	f.begun = true
	if again {
		c.again, c.mark = f.keys, f.mark
		f.keys, f.noted = nil, false
	}
	c.first = s.After == nil && len(c.again) == 0
	t.chunk = c
	return c
}

// drop ends a chunk that was not read, or may have no place.
func (t *Tracker) drop(c *Chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveBack(c, c.again)
	if t.chunk == c {
		t.chunk = nil
	}
}

// shown tells whether a snapshot shows all that the stream had delivered when the chunk was begun.
// If so the chunk is read with it.
func (t *Tracker) shown(c *Chunk, v Visibility) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(v)
	for _, xid := range c.before {
		if !v.Shows(xid) {
			return false
		}
	}
	c.shows = v
	if f := t.followed[c.snapshot]; f != nil && c.first {
		f.first = &v
	}
	return true
}

// seen is told of a snapshot of the server while no chunk is read.
func (t *Tracker) seen(v Visibility) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(v)
}

// forget drops transactions that a snapshot shows. The caller has locked mu.
func (t *Tracker) forget(v Visibility) {
	maps.DeleteFunc(t.unseen, func(xid uint32, _ bool) bool { return v.Shows(xid) })
	t.last = &v
}

// fill gives a chunk its rows, or says why it cannot have any. Of the keys of rows that are read once more it
// has come to so many.
func (t *Tracker) fill(c *Chunk, rows []decoder.Tuple, used int, end bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if rest := c.again[used:]; len(rest) > 0 {
		t.giveBack(c, rest)
		c.again, c.mark = c.again[:used], 0
	}
	c.end = end
	c.fill(rows)
	return c.err
}

// Take returns the chunk whose place the stream has come to, nil if it is not here. With an error it
// cannot be used. The caller settles it.
func (t *Tracker) Take(token string) (*Chunk, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chunk
	if c == nil || c.token != token {
		return nil, nil
	}
	t.chunk = nil
	if f := t.followed[c.snapshot]; f != nil && c.end && c.err == nil {
		f.complete = true
	}
	return c, c.err
}
