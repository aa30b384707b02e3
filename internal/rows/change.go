package rows

import (
	"time"

	"github.com/pgamqp/pgamqp/decoder"
)

// change is a change with its values, ready to be written.
type change struct {
	message   *decoder.Message
	relation  *decoder.Relation
	operation string
	types     []*Type  // of the columns
	names     [][]byte // of the columns, as they begin a member of an object: "id":
	// before and after are nil if the change has none. In before, columns that the replica
	// identity does not have are absent.
	before, after []value
	// unchanged says that after has values that are not known.
	unchanged bool

	room [2][]value // of before and after, for the next change
}

// value is one of a row.
type value struct {
	decoder.Value
	absent bool
}

// set takes a change apart. types and names are those of the table's columns. What c had room for before is
// used again.
func (c *change) set(m *decoder.Message, types []*Type, names [][]byte) {
	d := m.Change
	*c = change{message: m, relation: d.Relation, operation: Operation(d.Op), types: types, names: names, room: c.room}
	if d.Old != nil {
		c.before = c.values(d.Old, 0)
		for i := range c.before {
			c.before[i].absent = d.KeyOnly && !d.Relation.Columns[i].Key
		}
	}
	if d.New != nil {
		c.after = c.values(d.New, 1)
		c.fillUnchanged()
	}
}

// values reads a row into one of two places.
func (c *change) values(t decoder.Tuple, place int) []value {
	var room [32]decoder.Value
	out := c.room[place][:0]
	for _, v := range t.Values(room[:0]) {
		out = append(out, value{Value: v})
	}
	c.room[place] = out
	return out
}

// fillUnchanged takes values that the update did not touch from the old row, if that is
// known.
func (c *change) fillUnchanged() {
	for i, v := range c.after {
		if v.State != decoder.Unchanged {
			continue
		}
		if c.before != nil && !c.before[i].absent && c.before[i].State != decoder.Unchanged {
			c.after[i] = c.before[i]
			continue
		}
		c.after[i].absent = true
		c.unchanged = true
	}
}

// keyValue returns the text of a column for the routing key: of the new row, or the old one where there is none or it does not
// know the column; the other way round if old is set. Without a value, and of NULL, it is "null".
func (c *change) keyValue(column string, old bool) string {
	rows := [...][]value{c.after, c.before}
	if old {
		rows = [...][]value{c.before, c.after}
	}
	for i := range c.relation.Columns {
		if c.relation.Columns[i].Name != column {
			continue
		}
		for _, row := range rows {
			switch {
			case row == nil || row[i].absent:
			case row[i].State == decoder.Text:
				return string(row[i].Text)
			case row[i].State == decoder.Null:
				return "null"
			}
		}
	}
	return "null"
}

// appendCommitTime appends when the transaction was committed, with the microseconds that
// PostgreSQL knows.
func (c *change) appendCommitTime(dst []byte) []byte {
	return c.message.CommitTime.UTC().AppendFormat(dst, time.RFC3339Nano)
}
