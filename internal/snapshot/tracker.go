package snapshot

import (
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pgamqp/pgamqp/decoder"
)

// Tracker knows what the main stream tells of the table that is being read. The stream calls
// Changed and Take, the Taker all else.
type Tracker struct {
	watching atomic.Bool // whether a table is read; what all rows of other times cost

	mu            sync.Mutex // guards all below
	schema, table string
	// unseen are transactions that have changed the table, as far as the stream has come, and that no
	// snapshot is known to show.
	unseen map[uint32]bool
	last   *visibility // the last snapshot that is known; what one shows all later ones do; nil if none
	chunk  *Chunk      // that is read, or waits for its place; nil if none
	number int         // of chunks that were begun, for their tokens
}

// watch begins to follow a table, or with empty names ends it.
func (t *Tracker) watch(schema, table string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.schema, t.table = schema, table
	t.unseen, t.last, t.chunk = make(map[uint32]bool), nil, nil
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
	if t.last == nil || !t.last.shows(m.XID) {
		t.unseen[m.XID] = true
	}
	if t.chunk != nil {
		t.chunk.note(m.XID, m.Change)
	}
}

// begin makes a chunk, which keeps what the stream tells from now on. prefix makes its token
// one that no other process has.
func (t *Tracker) begin(prefix string, rel *decoder.Relation) *Chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	t.chunk = &Chunk{
		Relation: rel, token: prefix + "-" + strconv.Itoa(t.number),
		before: slices.Collect(maps.Keys(t.unseen)), settled: make(chan Outcome, 1),
	}
	return t.chunk
}

// shown tells whether a snapshot shows all that the stream had delivered when the chunk was begun.
// If so the chunk is read with it.
func (t *Tracker) shown(c *Chunk, v visibility) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(v)
	for _, xid := range c.before {
		if !v.shows(xid) {
			return false
		}
	}
	c.shows = v
	return true
}

// seen is told of a snapshot of the server while no chunk is read.
func (t *Tracker) seen(v visibility) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(v)
}

// forget drops transactions that a snapshot shows. The caller has locked mu.
func (t *Tracker) forget(v visibility) {
	maps.DeleteFunc(t.unseen, func(xid uint32, _ bool) bool { return v.shows(xid) })
	t.last = &v
}

// fill gives a chunk its rows, or says why it cannot have any.
func (t *Tracker) fill(c *Chunk, rows []decoder.Tuple) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.err == nil {
		c.fill(rows)
	}
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
	return c, c.err
}
