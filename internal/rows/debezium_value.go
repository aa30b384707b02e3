package rows

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strconv"
)

// Values as Debezium's connector for PostgreSQL writes them with decimal.handling.mode=string (or
// double, see Encoding), time.precision.mode=adaptive, interval.handling.mode=numeric and
// hstore.handling.mode=json ("Data type mappings" in its documentation).

// unavailable stands for a large value that an update did not touch.
const unavailable = "__debezium_unavailable_value"

// Debezium's milliseconds for timestamps that are infinite, which it writes for
// microseconds, too.
const (
	positiveInfinity = 9223372036825200000
	negativeInfinity = -9223372036832400000
)

// appendDebezium appends a value whose form is not the one that it has elsewhere. What it
// cannot read is an error, and so becomes a string.
func appendDebezium(dst []byte, t *Type, text []byte) (out []byte, known bool, err error) {
	var n int64
	var ok bool
	switch t.Kind {
	case KindDate:
		n, ok = parseDate(text)
	case KindTime:
		n, ok = parseClock(text)
	case KindTimestamp:
		switch string(text) {
		case "infinity":
			return strconv.AppendInt(dst, positiveInfinity, 10), true, nil
		case "-infinity":
			return strconv.AppendInt(dst, negativeInfinity, 10), true, nil
		}
		n, ok = parseTimestamp(text)
	case KindTimestampTZ:
		return appendPadded(dst, t.Digits, text), true, nil
	case KindInterval:
		n, ok = parseInterval(text)
	case KindTimeTZ:
		clock, zone := cutZone(text)
		micros, isTime := parseClock(clock)
		offset, isZone := parseZone(zone)
		if !isTime || !isZone {
			return dst, true, errText
		}
		utc := micros - offset
		utc -= floorDiv(utc, day) * day
		return append(appendClock(append(dst, '"'), utc), `Z"`...), true, nil
	case KindBit, KindVarbit:
		return appendBits(dst, t.Short, text)
	case KindJSON:
		return appendString(dst, text), true, nil
	case KindHstore:
		object, err := appendHstore(nil, text)
		return appendString(dst, object), true, err
	default:
		return dst, false, nil
	}
	if !ok {
		return dst, true, errText
	}
	if t.Short {
		n = floorDiv(n, 1000)
	}
	return strconv.AppendInt(dst, n, 10), true, nil
}

// appendPadded appends a timestamptz with as many digits of seconds as its column is declared with, which Debezium does since 2.2.
func appendPadded(dst []byte, digits int, text []byte) []byte {
	start := len(dst)
	dst = appendTime(dst, text)
	whole, isUTC := bytes.CutSuffix(dst[start:], []byte(`Z"`))
	if !isUTC {
		return dst
	}
	dst = dst[:start+len(whole)]
	have := 0
	if point := bytes.IndexByte(whole, '.'); point >= 0 {
		have = len(whole) - point - 1
	} else if digits > 0 {
		dst = append(dst, '.')
	}
	for ; have < digits; have++ {
		dst = append(dst, '0')
	}
	return append(dst, `Z"`...)
}

// appendBits appends a single bit as a boolean, several as bytes of which the first has the
// last eight.
func appendBits(dst []byte, single bool, text []byte) ([]byte, bool, error) {
	packed := make([]byte, (len(text)+7)/8)
	for i, c := range text {
		at := len(text) - 1 - i
		switch c {
		case '1':
			packed[at/8] |= 1 << (at % 8)
		case '0':
		default:
			return dst, true, errText
		}
	}
	if single && len(text) == 1 {
		return strconv.AppendBool(dst, text[0] == '1'), true, nil
	}
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), packed), '"'), true, nil
}

// appendUnavailable appends what stands for a value that is not known.
func (e Encoding) appendUnavailable(dst []byte, t *Type) []byte {
	switch {
	case t.Kind == KindArray:
		return append(e.appendUnavailable(append(dst, '['), t.Elem), ']')
	case t.Kind == KindBytes && e.BytesAsHex:
		return append(hex.AppendEncode(append(dst, '"'), []byte(unavailable)), '"')
	case t.Kind == KindBytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), []byte(unavailable)), '"')
	}
	return appendString(dst, []byte(unavailable))
}
