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

	token  string
	before []uint32 // transactions that its snapshot must show
	shows  Visibility
	early  []early // what the stream told while it was read
	size   int     // of those, in bytes
	rows   []decoder.Tuple
	byKey  map[string][]int // places of rows by their keys; those left out are not in it
	err    error            // why it cannot be used

	settled chan Outcome // capacity 1
}

// early is a change that came before the rows that it may be of.
type early struct {
	xid    uint32
	change *decoder.Change
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
	c.rows, c.byKey = rows, make(map[string][]int, len(rows))
	for i, row := range rows {
		key := c.key(row.Values(nil))
		c.byKey[key] = append(c.byKey[key], i)
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
	case !c.alike(change.Relation):
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
	old := before
	if old == nil {
		old = after
	}
	key := c.key(old)
	places := c.byKey[key]
	if len(places) == 0 {
		return
	}
	at := places[0]
	if c.byKey[key] = places[1:]; len(places) == 1 {
		delete(c.byKey, key)
	}
	row := c.rows[at].Values(nil)
	c.rows[at] = nil
	if change.Op == decoder.OpUpdate && fillUnchanged(after, row) {
		// Its message lacks what it did not touch, which is known here.
		c.rows[at] = tupleOf(after)
		key := c.key(after)
		c.byKey[key] = append(c.byKey[key], at)
	}
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

// alike tells whether a table as the stream describes it has the columns of the chunk.
func (c *Chunk) alike(rel *decoder.Relation) bool {
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

// key is the replica identity of a row as one text. All rows have the same in a table without one,
// whose rows PostgreSQL lets nobody change.
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
