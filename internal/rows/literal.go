package rows

import (
	"bytes"
	"encoding/json"
)

// The texts of arrays, composite values and hstore, as their output functions write them
// ("Arrays", "Composite Types" and "hstore" in PostgreSQL's documentation).

// maxDepth bounds arrays in arrays; PostgreSQL's own limit is 6 dimensions.
const maxDepth = 8

// literal reads a text.
type literal struct {
	rest []byte
	room []byte // for what has to be unescaped
}

// next takes a byte, if it is there.
func (l *literal) next(c byte) bool {
	if len(l.rest) == 0 || l.rest[0] != c {
		return false
	}
	l.rest = l.rest[1:]
	return true
}

// quoted reads up to the closing quote; the opening one is gone. A backslash, and with
// doubled a quote, too, stands before what means itself. What it returns holds until the
// next call.
func (l *literal) quoted(doubled bool) ([]byte, error) {
	l.room = l.room[:0]
	for i := 0; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '\\' || c == '"' && doubled && i+1 < len(l.rest) && l.rest[i+1] == '"':
			if i++; i == len(l.rest) {
				return nil, errText
			}
			l.room = append(l.room, l.rest[i])
		case c == '"':
			l.rest = l.rest[i+1:]
			return l.room, nil
		default:
			l.room = append(l.room, c)
		}
	}
	return nil, errText
}

// plain reads up to one of the bytes in ends, which stays.
func (l *literal) plain(ends string) ([]byte, error) {
	n := bytes.IndexAny(l.rest, ends)
	if n < 0 {
		return nil, errText
	}
	text := l.rest[:n]
	l.rest = l.rest[n:]
	return text, nil
}

// appendArray writes an array as one of JSON. Bounds that do not begin with 1 are lost.
func (e Encoding) appendArray(dst []byte, t *Type, text []byte) ([]byte, error) {
	l := &literal{rest: text}
	if len(text) > 0 && text[0] == '[' {
		_, after, found := bytes.Cut(text, []byte("="))
		if !found {
			return dst, errText
		}
		l.rest = after
	}
	dst, err := e.appendElements(dst, t, l, 0)
	if err == nil && len(l.rest) > 0 {
		err = errText
	}
	return dst, err
}

func (e Encoding) appendElements(dst []byte, t *Type, l *literal, depth int) ([]byte, error) {
	if !l.next('{') || depth > maxDepth {
		return dst, errText
	}
	dst = append(dst, '[')
	for first := true; !l.next('}'); first = false {
		if !first {
			if !l.next(t.Delimiter) {
				return dst, errText
			}
			dst = append(dst, ',')
		}
		var err error
		switch {
		case len(l.rest) == 0:
			return dst, errText
		case l.rest[0] == '{':
			dst, err = e.appendElements(dst, t, l, depth+1)
		case l.next('"'):
			var text []byte
			if text, err = l.quoted(false); err == nil {
				dst = e.appendValue(dst, t.Elem, text)
			}
		default:
			var text []byte
			if text, err = l.plain(string([]byte{t.Delimiter, '}'})); err == nil {
				if bytes.EqualFold(text, []byte("NULL")) {
					dst = append(dst, "null"...)
				} else {
					dst = e.appendValue(dst, t.Elem, text)
				}
			}
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendRecord writes a composite value as an object.
func (e Encoding) appendRecord(dst []byte, t *Type, text []byte) ([]byte, error) {
	l := &literal{rest: text}
	if !l.next('(') {
		return dst, errText
	}
	dst = append(dst, '{')
	for i, f := range t.Fields {
		if i > 0 {
			if !l.next(',') {
				return dst, errText
			}
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, []byte(f.Name)), ':')
		switch {
		case len(l.rest) > 0 && (l.rest[0] == ',' || l.rest[0] == ')'):
			dst = append(dst, "null"...)
		case l.next('"'):
			value, err := l.quoted(true)
			if err != nil {
				return dst, err
			}
			dst = e.appendField(dst, f.Type, value)
		default:
			value, err := l.plain(",)")
			if err != nil {
				return dst, err
			}
			dst = e.appendField(dst, f.Type, value)
		}
	}
	if !l.next(')') || len(l.rest) > 0 {
		return dst, errText
	}
	return append(dst, '}'), nil
}

// appendField is appendValue for an attribute of a composite type. That type keeps its OID when its attributes become
// others, so the text may be older than what is known of it, and is no number or JSON although it should be.
func (e Encoding) appendField(dst []byte, t *Type, text []byte) []byte {
	start := len(dst)
	if dst = e.appendValue(dst, t, text); !json.Valid(dst[start:]) {
		e.noteStale()
		dst = appendString(dst[:start], text)
	}
	return dst
}

// appendHstore writes an hstore as an object of strings and nulls.
func appendHstore(dst, text []byte) ([]byte, error) {
	l := &literal{rest: text}
	dst = append(dst, '{')
	for first := true; len(l.rest) > 0; first = false {
		if !first {
			if !l.next(',') || !l.next(' ') {
				return dst, errText
			}
			dst = append(dst, ',')
		}
		if !l.next('"') {
			return dst, errText
		}
		key, err := l.quoted(false)
		if err != nil {
			return dst, err
		}
		dst = append(appendString(dst, key), ':')
		if !l.next('=') || !l.next('>') {
			return dst, errText
		}
		if value, isNull := bytes.CutPrefix(l.rest, []byte("NULL")); isNull {
			l.rest = value
			dst = append(dst, "null"...)
			continue
		}
		if !l.next('"') {
			return dst, errText
		}
		value, err := l.quoted(false)
		if err != nil {
			return dst, err
		}
		dst = appendString(dst, value)
	}
	return append(dst, '}'), nil
}
