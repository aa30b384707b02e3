package rows

import (
	"context"
	"fmt"
)

// Kind says how the text of a value is to be understood.
type Kind int

// The kinds. What is none of the others is text.
const (
	KindText Kind = iota
	KindBool
	KindNumber // integer or floating point
	KindNumeric
	KindBytes
	KindJSON
	KindDate
	KindTime
	KindTimeTZ
	KindTimestamp
	KindTimestampTZ
	KindInterval
	KindBit
	KindVarbit
	KindArray
	KindComposite
	KindHstore
)

// Type is what is known of a type of PostgreSQL. A domain is its base type.
type Type struct {
	Kind Kind
	// Short says that a column's type modifier leaves so little that Debezium writes it in another
	// way: a time of milliseconds, a single bit.
	Short bool
	// Digits are those of the seconds' fraction that a timestamptz is declared with.
	Digits int
	// Elem is the type of an array's elements, Delimiter stands between them.
	Elem      *Type
	Delimiter byte
	// Fields are those of a composite type, in order.
	Fields []Field
	// Mutable says that it is or has a composite type, which keeps its OID when its attributes become others, or one that is
	// not there, but may be later. PostgreSQL does not describe a table anew for that.
	Mutable bool
}

// Field is an attribute of a composite type.
type Field struct {
	Name string
	Type *Type
}

// Settings of the session that streams make texts of values the same everywhere, as ISO
// 8601 where that knows a form ("Client Connection Defaults" in PostgreSQL's
// documentation).
func Settings() map[string]string {
	return map[string]string{
		"datestyle": "ISO", "intervalstyle": "iso_8601", "timezone": "UTC",
		"extra_float_digits": "1", "bytea_output": "hex",
	}
}

// builtin are the types whose OIDs are the same in every database, and the OIDs of arrays of
// them. Those that are text all the same are here so that nobody has to ask for them.
func builtin() map[uint32]*Type {
	all := make(map[uint32]*Type)
	for _, b := range []struct {
		kind       Kind
		oid, array uint32
	}{
		{KindBool, 16, 1000},
		{KindBytes, 17, 1001},
		{KindText, 18, 1002}, // "char"
		{KindText, 19, 1003}, // name
		{KindNumber, 20, 1016},
		{KindNumber, 21, 1005},
		{KindNumber, 23, 1007},
		{KindText, 25, 1009},
		{KindNumber, 26, 1028}, // oid
		{KindJSON, 114, 199},
		{KindText, 142, 143}, // xml
		{KindText, 650, 651}, // cidr
		{KindNumber, 700, 1021},
		{KindNumber, 701, 1022},
		{KindText, 774, 775},  // macaddr8
		{KindText, 790, 791},  // money
		{KindText, 829, 1040}, // macaddr
		{KindText, 869, 1041}, // inet
		{KindText, 1042, 1014},
		{KindText, 1043, 1015},
		{KindDate, 1082, 1182},
		{KindTime, 1083, 1183},
		{KindTimestamp, 1114, 1115},
		{KindTimestampTZ, 1184, 1185},
		{KindInterval, 1186, 1187},
		{KindTimeTZ, 1266, 1270},
		{KindBit, 1560, 1561},
		{KindVarbit, 1562, 1563},
		{KindNumeric, 1700, 1231},
		{KindText, 2950, 2951}, // uuid
		{KindText, 3220, 3221}, // pg_lsn
		{KindJSON, 3802, 3807},
	} {
		t := &Type{Kind: b.kind}
		if b.kind == KindTimestampTZ {
			t.Digits = 6
		}
		all[b.oid] = t
		all[b.array] = &Type{Kind: KindArray, Elem: t, Delimiter: ','}
	}
	return all
}

// withModifier returns the type of a column with such a modifier (pg_attribute.atttypmod, -1 for
// none).
func (t *Type) withModifier(modifier int32) *Type {
	short := *t
	switch {
	case t.Kind == KindArray:
		elem := t.Elem.withModifier(modifier)
		if elem == t.Elem {
			return t
		}
		short.Elem = elem
		return &short
	case (t.Kind == KindTime || t.Kind == KindTimestamp) && modifier >= 0 && modifier <= 3, t.Kind == KindBit && modifier == 1:
		short.Short = true
		return &short
	case t.Kind == KindTimestampTZ && modifier >= 0 && int(modifier) < t.Digits:
		short.Digits = int(modifier)
		return &short
	}
	return t
}

// Description is a row of pg_type, as far as it matters, for Types.
type Description struct {
	// Kind is pg_type.typtype; an array is a base type with Elem.
	Kind byte
	Name string // without schema
	// Elem is the element type of a true array, else 0; Base the base type of a domain.
	Elem, Base uint32
	// Modifier is what a domain declares for its base type, as pg_attribute.atttypmod for a column.
	Modifier  int32
	Delimiter byte
	// Attributes are those of a composite type, in order.
	Attributes []Attribute
}

// Attribute is a column of a composite type.
type Attribute struct {
	Name     string
	Type     uint32
	Modifier int32
}

// Types knows types by their OIDs, and asks for those that it does not know. It belongs to one
// Router and is no more safe for concurrent use.
//
// What is asked for is what there is now, not when the row was written. That matters for
// types that were changed or dropped since: what cannot be read as its type says is text. Which of them are asked for again,
// and when, see Router.typesOf and Router.renewTypes.
type Types struct {
	// ask returns a description, nil if there is no such type.
	ask   func(ctx context.Context, oid uint32) (*Description, error)
	known map[uint32]*Type
}

// NewTypes returns Types that know what is the same everywhere.
func NewTypes(ask func(context.Context, uint32) (*Description, error)) *Types {
	return &Types{ask: ask, known: builtin()}
}

// Of returns a type. It blocks while it asks; an error is that of asking.
func (t *Types) Of(ctx context.Context, oid uint32) (*Type, error) {
	return t.of(ctx, oid, 0)
}

// Forget makes all types that belong to the database be asked for again: a table was
// described anew, perhaps because one of its types has changed.
func (t *Types) Forget() { t.known = builtin() }

// maxNesting bounds how deep types may contain each other.
const maxNesting = 32

// of is Of at a depth of types in types.
func (t *Types) of(ctx context.Context, oid uint32, depth int) (*Type, error) {
	if known := t.known[oid]; known != nil {
		return known, nil
	}
	text := &Type{Kind: KindText}
	if depth > maxNesting {
		return text, nil
	}
	d, err := t.ask(ctx, oid)
	if err != nil {
		return nil, fmt.Errorf("look up type %d: %w", oid, err)
	}
	found := text
	switch {
	case d == nil: // dropped, or not visible yet
		found.Mutable = true
	case d.Kind == 'd':
		if found, err = t.of(ctx, d.Base, depth+1); err == nil {
			found = found.withModifier(d.Modifier)
		}
	case d.Kind == 'c':
		found = &Type{Kind: KindComposite, Mutable: true}
		for _, a := range d.Attributes {
			var field *Type
			if field, err = t.of(ctx, a.Type, depth+1); err != nil {
				break
			}
			found.Fields = append(found.Fields, Field{Name: a.Name, Type: field.withModifier(a.Modifier)})
		}
	case d.Elem != 0:
		found = &Type{Kind: KindArray, Delimiter: d.Delimiter}
		if found.Elem, err = t.of(ctx, d.Elem, depth+1); err == nil {
			found.Mutable = found.Elem.Mutable
		}
	case d.Kind == 'b' && d.Name == "hstore":
		found = &Type{Kind: KindHstore}
	}
	if err != nil {
		return nil, err
	}
	t.known[oid] = found
	return found, nil
}
