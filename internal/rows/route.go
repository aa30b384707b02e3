package rows

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgamqp/pgamqp/decoder"
)

// Route is a row of amqp.route: which changes become messages, and where these go.
type Route struct {
	ID       int32
	BrokerID int32
	Exchange string
	// Schema and Table are patterns: * stands for any characters. They are empty if Prefix is set.
	Schema, Table string
	// Prefix is a pattern for the prefixes of what others write with pg_logical_emit_message.
	Prefix     string
	Operations []string
	RoutingKey string // a template, see parseTemplate
	Format     Format
	Encoding   Encoding

	key template // of RoutingKey
}

// Format says what the body of a message looks like.
type Format string

// The formats.
const (
	FormatJSON        Format = "json"        // flat, see appendJSON
	FormatDebezium    Format = "debezium"    // see appendDebezium
	FormatCloudEvents Format = "cloudevents" // binary: attributes are headers, the body is flat
	FormatStructured  Format = "cloudevents_structured"
	FormatRaw         Format = "raw" // of messages with a prefix: their content
)

// Operation returns the name of an operation, as in amqp.route and in {op}.
func Operation(op decoder.Op) string {
	switch op {
	case decoder.OpInsert:
		return "insert"
	case decoder.OpUpdate:
		return "update"
	case decoder.OpDelete:
		return "delete"
	case decoder.OpTruncate:
		return "truncate"
	case decoder.OpRead:
		return "read"
	}
	return fmt.Sprintf("unknown operation %q", byte(op))
}

// prepare checks what the database should have checked, and reads the template.
func (r *Route) prepare() (err error) {
	if r.key, err = parseTemplate(r.RoutingKey); err != nil {
		return fmt.Errorf("route %d: routing_key: %w", r.ID, err)
	}
	switch {
	case r.Prefix != "" && r.Format == FormatRaw:
		return nil
	case r.Prefix == "" && slices.Contains([]Format{FormatJSON, FormatDebezium, FormatCloudEvents, FormatStructured}, r.Format):
		return nil
	}
	return fmt.Errorf("route %d: format %q is not known; a newer pgamqp may know it", r.ID, r.Format)
}

// ourSchema is never routed: a dead letter would make a message, which would become a dead
// letter, and so on.
const ourSchema = "amqp"

// matches tells whether a route is for a table.
func (r *Route) matches(rel *decoder.Relation) bool {
	return r.Prefix == "" && rel.Schema != ourSchema && glob(r.Schema, rel.Schema) && glob(r.Table, rel.Name)
}

// takes tells whether a route is for an operation. Whoever takes insertions takes the rows of a
// snapshot, too.
func (r *Route) takes(op decoder.Op) bool {
	if op == decoder.OpRead {
		op = decoder.OpInsert
	}
	return slices.Contains(r.Operations, Operation(op))
}

// glob matches a name with a pattern in which * stands for any characters.
func glob(pattern, name string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !more {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, part)
		}
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name, rest = name[at+len(part):], after
	}
}

// template is a routing key with places for what differs.
type template []piece

// piece is text, or the name of what stands in its place.
type piece struct{ text, name string }

// columnPlace begins the name of a place for the value of a column.
const columnPlace = "column."

// parseTemplate reads a routing key with {schema}, {table}, {op} and {column.NAME}, or {prefix}.
func parseTemplate(s string) (template, error) {
	var t template
	for s != "" {
		text, rest, found := strings.Cut(s, "{")
		if strings.Contains(text, "}") {
			return nil, fmt.Errorf("%q has a } without {", s)
		}
		if text != "" {
			t = append(t, piece{text: text})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		column, isColumn := strings.CutPrefix(name, columnPlace)
		switch {
		case !closed:
			return nil, fmt.Errorf("%q has a { without }", s)
		case !slices.Contains([]string{"schema", "table", "op", "prefix"}, name) && (!isColumn || column == ""):
			return nil, fmt.Errorf("{%s} is not known; there are {schema}, {table}, {op} and {column.NAME}, or {prefix}", name)
		}
		t = append(t, piece{name: name})
		s = after
	}
	return t, nil
}

// Limits of a routing key, in bytes: AMQP's own, and what one value may contribute.
const (
	maxKey      = 255
	maxKeyValue = 100
)

// fill makes a routing key. value returns what stands in a place; what could be taken for
// something else in a key is escaped, what is long is cut.
func (t template) fill(value func(name string) string) string {
	var room [maxKey]byte
	b := room[:0]
	for _, p := range t {
		switch p.name {
		case "":
			b = append(b, p.text...)
		case "prefix": // several words, if it has dots, for bindings such as app.*
			b = appendKey(b, value(p.name), "*#%")
		default:
			b = appendKey(b, value(p.name), ".*#%")
		}
	}
	return cut(string(b), maxKey)
}

// place returns what stands in a place of a routing key, oldPlace what does so in that of a message about the old row.
func (c *change) place(name string) string { return c.placeOf(name, false) }

func (c *change) oldPlace(name string) string { return c.placeOf(name, true) }

func (c *change) placeOf(name string, old bool) string {
	switch name {
	case "schema":
		return c.relation.Schema
	case "table":
		return c.relation.Name
	case "op":
		return c.operation
	}
	return c.keyValue(strings.TrimPrefix(name, columnPlace), old)
}

// appendKey writes a value with what has a meaning in routing keys and bindings, spaces and
// control characters as %XX. A value without dots is one word.
func appendKey(dst []byte, s, meaning string) []byte {
	for _, c := range []byte(cut(s, maxKeyValue)) {
		if c <= ' ' || c == 0x7f || strings.IndexByte(meaning, c) >= 0 {
			dst = fmt.Appendf(dst, "%%%02X", c)
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// cut returns the beginning of s that is no longer than n bytes, without half a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
