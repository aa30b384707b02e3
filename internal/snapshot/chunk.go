package snapshot

import (
	"errors"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

// Chunk is a part of a table on its way into the stream. The Tracker that made it guards it until it is
// taken.
type Chunk struct {
	// Relation has no OID: it is not one that the stream has described.
	Relation *decoder.Relation
	// At is when it was read.
	At time.Time

	token    string
	snapshot int32
	again    [][]string // keys of the rows, if they are read once more
	mark     int64      // of the note that ends with these; 0 if none does
	first    bool       // it is the first one of the table
	end      bool       // it is the last one of the table
	before   []uint32   // transactions that its snapshot must show
	shows    Visibility
	early    []early // what the stream told while it was read
	size     int     // of those, in bytes
	rows     []decoder.Tuple
	byKey    map[string]*alike // those left out are not in it
	err      error             // why it cannot be used

	settled chan Outcome // capacity 1
}

// early is a change that came before the rows that it may be of.
type early struct {
	xid    uint32
	change *decoder.Change
}

// alike is rows of one key. Unless the key is unique, the consumer may have rows like them.
type alike struct {
	places []int // in rows
	told   int   // how many the stream has told of besides, and that are not gone again
}

// Limits of what is kept while a chunk is read.
const (
	maxEarly     = 10_000
	maxEarlySize = 4 << 20
)

var (
	// errBusy: so many rows of the table were changed while a chunk was read that it is read again.
	errBusy = errors.New("too many rows were changed at the time")
	// errAltered: the table does not look as it did when the chunk was read.
	errAltered = errors.New("the table was altered at the time")
)

// Rows returns the rows to be published, in the order in which they were read.
func (c *Chunk) Rows() []decoder.Tuple {
	var out []decoder.Tuple
	for _, row := range c.rows {
		if row != nil {
			out = append(out, row)
		}
	}
	return out
}

// note takes a change that the stream has delivered.
func (c *Chunk) note(xid uint32, change *decoder.Change) {
	switch {
	case c.err != nil:
	case c.byKey != nil:
		c.apply(xid, change)
	case len(c.early) >= maxEarly || c.size > maxEarlySize:
		c.err, c.early = errBusy, nil
	default:
		c.early = append(c.early, early{xid, change})
		c.size += len(change.Old) + len(change.New)
	}
}

// fill sets the rows that were read, and catches up with the stream.
func (c *Chunk) fill(rows []decoder.Tuple) {
	c.rows, c.byKey = rows, make(map[string]*alike, len(rows))
	for i, row := range rows {
		key := c.key(row.Values(nil))
		if c.byKey[key] != nil && c.unique() { // two keys of rows that are read once more were equal
			c.rows[i] = nil
			continue
		}
		c.put(i, key)
	}
	for _, e := range c.early {
		if c.err == nil {
			c.apply(e.xid, e.change)
		}
	}
	c.early = nil
}

// apply leaves out what a transaction has changed that the snapshot does not show.
func (c *Chunk) apply(xid uint32, change *decoder.Change) {
	switch {
	case c.shows.Shows(xid):
		return
	case !c.describes(change.Relation):
		c.err = errAltered
		return
	case change.Op == decoder.OpTruncate:
		clear(c.rows)
		clear(c.byKey)
		return
	}
	var before, after []decoder.Value
	if change.New != nil {
		after = change.New.Values(nil)
	}
	if change.Old != nil {
		before = change.Old.Values(nil)
		if after != nil && !change.KeyOnly {
			fillUnchanged(after, before)
		}
	}
	if change.Op == decoder.OpInsert {
		// A row of this key is gone, but the publication may leave out deletions.
		if c.unique() {
			c.drop(c.key(after))
		}
		c.tell(c.key(after))
		return
	}
	old := before
	if old == nil {
		old = after
	}
	at, dropped := c.drop(c.key(old))
	switch {
	case change.Op != decoder.OpUpdate:
	case dropped != nil && fillUnchanged(after, dropped.Values(nil)):
		// Its message lacks what it did not touch, which is known here.
		c.rows[at] = tupleOf(after)
		c.put(at, c.key(after))
	default:
		c.tell(c.key(after))
	}
}

// put notes that a row is there.
func (c *Chunk) put(at int, key string) {
	if c.byKey[key] == nil {
		c.byKey[key] = &alike{}
	}
	c.byKey[key].places = append(c.byKey[key].places, at)
}

// tell notes that the stream has told of a row besides, if that matters for one that is there.
func (c *Chunk) tell(key string) {
	if rows := c.byKey[key]; rows != nil {
		rows.told++
	}
}

// drop takes a row away that is gone: one that the stream has told of if there is any, else one of the
// chunk, which it returns.
func (c *Chunk) drop(key string) (at int, row decoder.Tuple) {
	rows := c.byKey[key]
	switch {
	case rows == nil:
		return 0, nil
	case rows.told > 0:
		rows.told--
		return 0, nil
	}
	at = rows.places[0]
	if rows.places = rows.places[1:]; len(rows.places) == 0 {
		delete(c.byKey, key)
	}
	row, c.rows[at] = c.rows[at], nil
	return at, row
}

// fillUnchanged gives values that are not known those of an older row, and tells whether there
// were any.
func fillUnchanged(values, older []decoder.Value) (some bool) {
	for i := range values {
		if values[i].State == decoder.Unchanged {
			values[i] = older[i]
			some = true
		}
	}
	return some
}

// describes tells whether a table as the stream describes it has the columns of the chunk.
func (c *Chunk) describes(rel *decoder.Relation) bool {
	if len(rel.Columns) != len(c.Relation.Columns) {
		return false
	}
	for i, column := range rel.Columns {
		if mine := c.Relation.Columns[i]; column.Name != mine.Name || column.Key != mine.Key || column.Type != mine.Type {
			return false
		}
	}
	return true
}

// unique tells whether no two rows have the same key. Under FULL all columns are the key, and no index says
// that rows differ; without a key all rows have the same, and PostgreSQL lets nobody change them.
func (c *Chunk) unique() bool {
	keys := 0
	for _, column := range c.Relation.Columns {
		if column.Key {
			keys++
		}
	}
	return keys > 0 && keys < len(c.Relation.Columns)
}

// key is the replica identity of a row as one text.
func (c *Chunk) key(values []decoder.Value) string {
	var key decoder.Tuple
	for i, column := range c.Relation.Columns {
		if column.Key {
			key = key.AppendValue(values[i])
		}
	}
	return string(key)
}

// tupleOf is the row of such values.
func tupleOf(values []decoder.Value) decoder.Tuple {
	t := decoder.Tuple{}
	for _, v := range values {
		t = t.AppendValue(v)
	}
	return t
}
