package snapshot

import (
	"slices"

	"github.com/pgamqp/pgamqp/decoder"
)

// maxMoved is how many rows of a table are read once more before all of it is.
const maxMoved = 1000

// moves is what a Tracker knows of a snapshot that is not over: rows that have to be read once more. An update
// that changes a key, and does not touch large values, is told without these. If the row was in a part
// that is not read yet, and is in one that was, no chunk has it.
type moves struct {
	schema, table string
	// keys are those of the rows. A chunk that is read once more has its keys itself.
	keys [][]string
	// mark is the number of the last note in amqp.snapshot; without one the snapshot begins again after a crash.
	// noted says that it is for keys.
	mark  int64
	noted bool
	begun bool // the first chunk was begun, so that there are parts that were read
	// first is a snapshot of the server that is not later than that of any chunk so far; nil if none is known.
	first *Visibility
	// complete says that the last chunk's rows were sent: from then on only rows of keys lack anything.
	complete bool
}

// Move is a row that a snapshot must read once more.
type Move struct {
	Snapshot int32
	Key      []string
	// Restart says that there are so many that the snapshot must begin again.
	Restart bool
}

// Follow begins anew, with the snapshots that are not over.
func (t *Tracker) Follow(all map[int32]Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followed = make(map[int32]*moves)
	for id, p := range all {
		t.follow(id, p.Schema, p.Table).begun = p.Chunk > 0
	}
}

// follow returns what is known of a snapshot. The caller has locked mu.
func (t *Tracker) follow(id int32, schema, table string) *moves {
	f := t.followed[id]
	if f == nil {
		f = &moves{schema: schema, table: table}
		t.followed[id] = f
		t.following.Store(true)
	}
	return f
}

// end forgets a snapshot that is over.
func (t *Tracker) end(id int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.followed, id)
	t.following.Store(len(t.followed) > 0)
}

// SetBack is told of a snapshot that goes on with a chunk that it has passed, before it does.
func (t *Tracker) SetBack(p Place) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.follow(p.Snapshot, p.Schema, p.Table)
	f.begun, f.complete = true, false
}

// Moved returns what must be noted of a change in amqp.snapshot before it can be confirmed, by [Tracker.Noted].
// It comes after [Tracker.Changed], so that no chunk takes a row for one that it has and does not show.
func (t *Tracker) Moved(m *decoder.Message) (out []Move) {
	c := m.Change
	if c.Op != decoder.OpUpdate || c.Old == nil || !c.KeyOnly || !t.following.Load() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var old, now []string
	for id, f := range t.followed {
		if f.table != c.Relation.Name || f.schema != c.Relation.Schema || !f.begun || t.allShow(id, f, m.XID) {
			continue
		}
		if now == nil {
			if old, now = moved(c); now == nil {
				return nil // it has all values
			}
		}
		switch {
		case f.complete && !t.lacks(id, f, old):
		case len(f.keys) >= maxMoved:
			out = append(out, Move{Snapshot: id, Restart: true})
		case f.noted:
			f.keys = append(f.keys, now)
		default:
			out = append(out, Move{Snapshot: id, Key: now})
		}
	}
	return out
}

// allShow tells whether all chunks of a snapshot show a transaction, or will: the first one waits for what was told
// before. The caller has locked mu.
func (t *Tracker) allShow(id int32, f *moves, xid uint32) bool {
	return f.first != nil && f.first.Shows(xid) ||
		t.chunk != nil && t.chunk.first && t.chunk.snapshot == id && slices.Contains(t.chunk.before, xid)
}

// moved returns the keys that a row had and has, if the change lacks values of it.
func moved(c *decoder.Change) (old, now []string) {
	lacks := false
	before, after := c.Old.Values(nil), c.New.Values(nil)
	for i, column := range c.Relation.Columns {
		switch {
		case !column.Key:
			lacks = lacks || after[i].State == decoder.Unchanged
			continue
		case after[i].State == decoder.Unchanged:
			after[i] = before[i]
		}
		old, now = append(old, string(before[i].Text)), append(now, string(after[i].Text))
	}
	if !lacks {
		return nil, nil
	}
	return old, now
}

// lacks tells whether a row is to be read once more, or being so. The caller has locked mu.
func (t *Tracker) lacks(id int32, f *moves, key []string) bool {
	same := func(other []string) bool { return slices.Equal(key, other) }
	return slices.ContainsFunc(f.keys, same) || t.chunk != nil && t.chunk.snapshot == id && slices.ContainsFunc(t.chunk.again, same)
}

// Noted is told of the note that stands for moves: their number, 0 if the snapshot was canceled.
func (t *Tracker) Noted(id int32, mark int64, keys ...[]string) {
	if mark == 0 {
		t.end(id)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.followed[id]; f != nil {
		f.keys, f.mark, f.noted = append(f.keys, keys...), max(f.mark, mark), true
	}
}

// Restarted is told of a snapshot that was set back to the start of the table.
func (t *Tracker) Restarted(id int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followed[id]
	if f == nil {
		return
	}
	*f = moves{schema: f.schema, table: f.table, mark: f.mark}
	if t.chunk != nil && t.chunk.snapshot == id { // it may be the first one
		t.chunk.err = errBusy
	}
}

// giveBack keeps keys of a chunk whose rows were not read, or which has got no place that is known. The caller has
// locked mu.
func (t *Tracker) giveBack(c *Chunk, keys [][]string) {
	if f := t.followed[c.snapshot]; f != nil && len(keys) > 0 {
		f.keys = append(f.keys, keys...)
	}
}
