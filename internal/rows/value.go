package rows

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"
)

// Encoding is how values are written where JSON leaves a choice.
type Encoding struct {
	// NumericAsNumber writes numeric as a JSON number, which many readers round; else it is
	// a string.
	NumericAsNumber bool
	// BytesAsHex writes bytea as hexadecimal digits; else it is base64.
	BytesAsHex bool
	// debezium writes times, bits, json and hstore as Debezium does.
	debezium bool
	// stale is set when a composite value is not what its type says: that may have been altered. It may be nil.
	stale *bool
}

// errText says that a text is not what its type says.
var errText = errors.New("not a value of this type")

// appendValue appends a value as JSON. What cannot be read as its type says is a string.
func (e Encoding) appendValue(dst []byte, t *Type, text []byte) []byte {
	start := len(dst)
	out, err := e.tryValue(dst, t, text)
	if err != nil {
		if t.Kind == KindComposite {
			e.noteStale()
		}
		return appendString(out[:start], text)
	}
	return out
}

func (e Encoding) noteStale() {
	if e.stale != nil {
		*e.stale = true
	}
}

// tryValue is appendValue; after an error what it has appended means nothing.
func (e Encoding) tryValue(dst []byte, t *Type, text []byte) ([]byte, error) {
	if e.debezium {
		if out, known, err := appendDebezium(dst, t, text); known || err != nil {
			return out, err
		}
	}
	switch t.Kind {
	case KindBool:
		switch string(text) {
		case "t":
			return append(dst, "true"...), nil
		case "f":
			return append(dst, "false"...), nil
		}
		return dst, errText
	case KindNumber:
		return appendNumber(dst, text) // else NaN or Infinity
	case KindNumeric:
		if e.NumericAsNumber {
			return appendNumber(dst, text)
		}
	case KindBytes:
		return e.appendBytes(dst, text)
	case KindJSON:
		return append(dst, text...), nil
	case KindTimestamp, KindTimestampTZ:
		return appendTime(dst, text), nil
	case KindArray:
		return e.appendArray(dst, t, text)
	case KindComposite:
		return e.appendRecord(dst, t, text)
	case KindHstore:
		return appendHstore(dst, text)
	}
	return appendString(dst, text), nil
}

// appendNumber appends what is a number in JSON, too.
func appendNumber(dst, text []byte) ([]byte, error) {
	rest := bytes.TrimPrefix(text, []byte("-"))
	whole := countDigits(rest)
	if whole == 0 || whole > 1 && rest[0] == '0' {
		return dst, errText
	}
	rest = rest[whole:]
	if len(rest) > 0 && rest[0] == '.' {
		n := countDigits(rest[1:])
		if n == 0 {
			return dst, errText
		}
		rest = rest[1+n:]
	}
	if len(rest) > 0 && (rest[0] == 'e' || rest[0] == 'E') {
		rest = rest[1:]
		if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') {
			rest = rest[1:]
		}
		if n := countDigits(rest); n == 0 || n < len(rest) {
			return dst, errText
		}
		rest = nil
	}
	if len(rest) > 0 {
		return dst, errText
	}
	return append(dst, text...), nil
}

// countDigits returns how many digits a text begins with.
func countDigits(text []byte) int {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return n
}

func (e Encoding) appendBytes(dst, text []byte) ([]byte, error) {
	digits, ok := bytes.CutPrefix(text, []byte(`\x`))
	if !ok {
		return dst, errText
	}
	dst = append(dst, '"')
	if e.BytesAsHex {
		dst = append(dst, digits...)
	} else {
		raw := make([]byte, hex.DecodedLen(len(digits)))
		if _, err := hex.Decode(raw, digits); err != nil {
			return dst, errText
		}
		dst = base64.StdEncoding.AppendEncode(dst, raw)
	}
	return append(dst, '"'), nil
}

// appendTime makes ISO 8601 of a timestamp: a T in the middle, and Z for UTC. What that does
// not know, infinity and years before Christ, stays as it is.
func appendTime(dst, text []byte) []byte {
	date, clock, found := bytes.Cut(text, []byte(" "))
	if !found || !isOf(date, "-") || !isOf(clock, ":.+-") {
		return appendString(dst, text)
	}
	dst = append(append(append(dst, '"'), date...), 'T')
	if utc, ok := bytes.CutSuffix(clock, []byte("+00")); ok {
		return append(append(dst, utc...), `Z"`...)
	}
	return append(append(dst, clock...), '"')
}

// isOf tells whether a text is made of digits and some marks only.
func isOf(text []byte, marks string) bool {
	for _, b := range text {
		if (b < '0' || b > '9') && strings.IndexByte(marks, b) < 0 {
			return false
		}
	}
	return true
}

// appendString appends text as a JSON string. What is not UTF-8, which only a database
// without an encoding can hold, is replaced.
func appendString(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRune(text[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, text[done:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, "\ufffd"...)
		}
		i++
		done = i
	}
	return append(append(dst, text[done:]...), '"')
}
