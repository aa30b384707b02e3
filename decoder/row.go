package decoder

import (
	"bytes"
	"encoding/binary"

	"github.com/jackc/pglogrepl"
)

// Op says what happened to a row, or to a table.
type Op byte

// The operations, by the types of their frames.
const (
	OpInsert   Op = 'I'
	OpUpdate   Op = 'U'
	OpDelete   Op = 'D'
	OpTruncate Op = 'T'
	// OpRead is a row that was there when a snapshot was taken; no frame has it.
	OpRead Op = 'r'
)

// Relation is a table as the stream describes it. It does not change: a table that was
// altered is described anew.
type Relation struct {
	OID          uint32
	Schema, Name string
	// Identity is the table's REPLICA IDENTITY: d default, n nothing, f full, i index.
	Identity byte
	Columns  []Column
}

// Column is one that the publication publishes.
type Column struct {
	Name string
	// Key says that it belongs to the replica identity.
	Key bool
	// Type is the OID of its type, Modifier what pg_attribute.atttypmod says.
	Type     uint32
	Modifier int32
}

// Change is what happened to one row, or to one table in a TRUNCATE.
type Change struct {
	Op       Op
	Relation *Relation
	// Old is the row before an update or delete, as far as the replica identity tells: all of
	// it under FULL; the key for a delete, and for an update that changed the key. Else it
	// is empty.
	Old Tuple
	// KeyOnly says that Old has values in the columns of the key only.
	KeyOnly bool
	// New is the row after an insert or update.
	New Tuple
	// Ordinal counts the changes of a transaction, from 1. It is the same each time that
	// the transaction is sent.
	Ordinal int
	// Cascade and RestartIdentity are those of a TRUNCATE.
	Cascade, RestartIdentity bool
}

// Tuple is the values of a row, one for each column of its relation, as the frame has
// them; nil if there are none.
type Tuple []byte

// Value is one column of a row.
type Value struct {
	State ValueState
	// Text is the value as the type's output function writes it, a part of the tuple.
	Text []byte
}

// ValueState says what is known of a value.
type ValueState byte

// The states, as in the frame. An unchanged value is one that is stored apart (TOAST) and
// that the update did not touch, so that it is not in the WAL.
const (
	Null      ValueState = 'n'
	Unchanged ValueState = 'u'
	Text      ValueState = 't'
)

// Values appends the values of the tuple to dst and returns it.
func (t Tuple) Values(dst []Value) []Value {
	for rest := []byte(t); len(rest) > 0; {
		v := Value{State: ValueState(rest[0])}
		rest = rest[1:]
		if v.State == Text {
			n := binary.BigEndian.Uint32(rest)
			v.Text, rest = rest[4:4+n], rest[4+n:]
		}
		dst = append(dst, v)
	}
	return dst
}

// AppendValue appends a value to a tuple.
func (t Tuple) AppendValue(v Value) Tuple {
	t = append(t, byte(v.State))
	if v.State == Text {
		t = binary.BigEndian.AppendUint32(t, uint32(len(v.Text)))
		t = append(t, v.Text...)
	}
	return t
}

// reader takes a frame apart. Once something is missing, ok is false and the rest is empty.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) || r.bad {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) string() string {
	b, rest, found := bytes.Cut(r.rest, []byte{0})
	if !found {
		r.bad, r.rest = true, nil
		return ""
	}
	r.rest = rest
	return string(b)
}

// decodeRelation remembers what a table looks like from now on.
func (d *Decoder) decodeRelation(frame []byte) (Event, error) {
	r := reader{rest: frame[1:]}
	rel := &Relation{OID: r.uint32(), Schema: r.string(), Name: r.string(), Identity: r.byte()}
	if rel.Schema == "" {
		rel.Schema = "pg_catalog" // which the protocol sends as an empty name
	}
	columns := r.uint16()
	for n := 0; n < columns && !r.bad; n++ {
		rel.Columns = append(rel.Columns, Column{Key: r.byte()&1 != 0, Name: r.string(), Type: r.uint32(), Modifier: int32(r.uint32())})
	}
	if r.bad || len(r.rest) > 0 {
		return nil, frameError(frame, "relation is not as long as it says")
	}
	if d.relations == nil {
		d.relations = make(map[uint32]*Relation)
	}
	d.relations[rel.OID] = rel
	d.other = Other{Type: frame[0]}
	return &d.other, nil
}

// decodeChange reads an insert, update or delete. start is the position of its record.
func (d *Decoder) decodeChange(frame []byte, start pglogrepl.LSN) (Event, error) {
	if !d.open {
		return nil, frameError(frame, "row outside a transaction")
	}
	oid := (&reader{rest: frame[1:]}).uint32()
	rel := d.relations[oid]
	if rel == nil {
		return nil, frameError(frame, "row of table %d, which was not described", oid)
	}
	const head = 1 + 4
	content := bytes.Clone(frame[head:])
	c := &Change{Op: Op(frame[0]), Relation: rel}
	r := reader{rest: content}
	kind := r.byte()
	if c.Op != OpInsert && (kind == 'O' || kind == 'K') {
		c.KeyOnly = kind == 'K'
		c.Old = r.tuple(len(rel.Columns))
		kind = 0
		if c.Op == OpUpdate {
			kind = r.byte()
		}
	}
	switch {
	case c.Op != OpDelete && kind == 'N':
		c.New = r.tuple(len(rel.Columns))
	case c.Op != OpDelete || c.Old == nil:
		return nil, frameError(frame, "row has no values of a known kind")
	}
	if r.bad || len(r.rest) > 0 {
		return nil, frameError(frame, "row of %d columns is not as long as it says", len(rel.Columns))
	}
	return d.changed(c, start), nil
}

// tuple checks the values of so many columns, and returns them.
func (r *reader) tuple(columns int) Tuple {
	if r.uint16() != columns {
		r.bad = true
		return nil
	}
	all := r.rest
	for range columns {
		switch ValueState(r.byte()) {
		case Null, Unchanged:
		case Text:
			r.take(int(r.uint32()))
		default:
			r.bad = true
		}
	}
	return Tuple(all[:len(all)-len(r.rest)])
}

// decodeTruncate reads a TRUNCATE, which may be of several tables.
func (d *Decoder) decodeTruncate(frame []byte, start pglogrepl.LSN) (Event, error) {
	if !d.open {
		return nil, frameError(frame, "truncate outside a transaction")
	}
	r := reader{rest: frame[1:]}
	tables := int(r.uint32())
	options := r.byte()
	if r.bad || tables == 0 || len(r.rest) != 4*tables {
		return nil, frameError(frame, "truncate is not as long as it says")
	}
	t := &Truncate{}
	for range tables {
		oid := r.uint32()
		rel := d.relations[oid]
		if rel == nil {
			return nil, frameError(frame, "truncate of table %d, which was not described", oid)
		}
		m := d.changed(&Change{Op: OpTruncate, Relation: rel, Cascade: options&1 != 0, RestartIdentity: options&2 != 0}, start)
		t.Messages = append(t.Messages, *m)
	}
	return t, nil
}

// changed makes a message of a change: the next one of its transaction.
func (d *Decoder) changed(c *Change, start pglogrepl.LSN) *Message {
	d.changes++
	c.Ordinal = d.changes
	d.message = Message{
		ID:            d.source.ChangeID(d.begin.Commit, c.Ordinal),
		LSN:           start,
		Transactional: true,
		XID:           d.begin.XID,
		CommitTime:    d.begin.Time,
		Commit:        d.begin.Commit,
		Change:        c,
	}
	return &d.message
}
