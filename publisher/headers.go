package publisher

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxDepth bounds nested headers; the broker and the library recurse over them.
const maxDepth = 16

// parseHeaders converts a JSON object to a header table.
//
//	string S, boolean t, null V, array A, object F
//	number: integer in 64 bits l, any other d
//	{"$type": value}: a value of that AMQP type, see typedValue
//
// An integer never becomes a Go int: the library would cut it to 32 bits.
func parseHeaders(text string) (amqp.Table, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, invalid("headers", "are not a JSON object: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid("headers", "have text behind the JSON object")
	}
	if object == nil {
		return nil, invalid("headers", "are null, not a JSON object")
	}
	return table(object, 1)
}

func table(object map[string]any, depth int) (amqp.Table, error) {
	if depth > maxDepth {
		return nil, invalid("headers", "are nested deeper than %d", maxDepth)
	}
	t := make(amqp.Table, len(object))
	for key, value := range object {
		if len(key) > maxShortString {
			return nil, invalid("header key", "%.20q... has %d bytes, the protocol allows %d", key, len(key), maxShortString)
		}
		v, err := headerValue(value, depth)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", key, err)
		}
		t[key] = v
	}
	return t, nil
}

func headerValue(value any, depth int) (any, error) {
	switch v := value.(type) {
	case nil, bool, string:
		return v, nil
	case json.Number:
		return number(v.String())
	case []any:
		if depth >= maxDepth {
			return nil, invalid("headers", "are nested deeper than %d", maxDepth)
		}
		list := make([]any, len(v))
		for i, element := range v {
			var err error
			if list[i], err = headerValue(element, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		if len(v) == 1 {
			for key, inner := range v {
				if name, typed := strings.CutPrefix(key, "$"); typed {
					return typedValue(name, inner, depth)
				}
			}
		}
		return table(v, depth+1)
	}
	return nil, invalid("value", "has type %T", value)
}

// number converts a JSON number as PostgreSQL prints it.
func number(s string) (any, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	return float(s, 64)
}

func float(s string, bits int) (float64, error) {
	f, err := strconv.ParseFloat(s, bits)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		// The broker closes the connection when it meets one that is not finite.
		return 0, invalid("number", "%.40q is not a finite number of %d bits", s, bits)
	}
	return f, nil
}

// typedValue converts the value of {"$name": value}.
func typedValue(name string, value any, depth int) (any, error) {
	switch name {
	case "table":
		object, ok := value.(map[string]any)
		if !ok {
			return nil, invalid("$table", "is not an object")
		}
		return table(object, depth+1)
	case "string":
		if s, ok := value.(string); ok {
			return s, nil
		}
		return nil, invalid("$string", "is not a string")
	case "bytes":
		s, ok := value.(string)
		if !ok {
			return nil, invalid("$bytes", "is not a string in base64")
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, invalid("$bytes", "is not base64: %v", err)
		}
		return b, nil
	case "timestamp":
		return timestamp(value)
	}
	text, err := numberText(name, value)
	if err != nil {
		return nil, err
	}
	return typedNumber(name, text)
}

// numberText accepts a number, or a string that holds one.
func numberText(name string, value any) (string, error) {
	switch v := value.(type) {
	case json.Number:
		return v.String(), nil
	case string:
		return v, nil
	}
	return "", invalid("$"+name, "is not a number")
}

func typedNumber(name, text string) (any, error) {
	bits := map[string]int{"int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32}[name]
	switch name {
	case "int8", "int16", "int32", "int64":
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return nil, invalid("$"+name, "%.40q is not in its range", text)
		}
		switch bits {
		case 8:
			return int8(n), nil
		case 16:
			return int16(n), nil
		case 32:
			return int32(n), nil
		}
		return n, nil
	case "uint8", "uint16", "uint32":
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return nil, invalid("$"+name, "%.40q is not in its range", text)
		}
		switch bits {
		case 8:
			return uint8(n), nil
		case 16:
			return uint16(n), nil
		}
		return uint32(n), nil
	case "float":
		f, err := float(text, 32)
		return float32(f), err
	case "double":
		f, err := float(text, 64)
		return f, err
	case "decimal":
		return decimal(text)
	}
	return nil, invalid("header type", "$%.40s is not known; write {\"$table\": {...}} for a table with such a key", name)
}

// decimal converts "12.34" to 1234 with scale 2.
func decimal(text string) (any, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole+fraction, 10, 32)
	if err != nil || len(fraction) > 255 || strings.ContainsAny(fraction, "+-") {
		return nil, invalid("$decimal", "%.40q has not at most 255 digits behind the point and an unscaled value of 32 bits", text)
	}
	return amqp.Decimal{Scale: uint8(len(fraction)), Value: int32(n)}, nil
}

// timestamp accepts seconds since 1970 or a time in ISO 8601 with its zone.
func timestamp(value any) (any, error) {
	text, err := numberText("timestamp", value)
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t, err := parseTime(text)
		if err != nil {
			return nil, invalid("$timestamp", "%.40q is neither seconds since 1970 nor a time with its zone", text)
		}
		seconds = t.Unix()
	}
	if seconds < 0 || seconds > maxTimestamp {
		return nil, invalid("$timestamp", "%.40q is not between 1970 and 9999", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// parseTime reads ISO 8601 as users and PostgreSQL write it.
func parseTime(text string) (time.Time, error) {
	var err error
	for _, layout := range [...]string{
		time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07",
		"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z0700", "2006-01-02 15:04:05Z07",
	} {
		var t time.Time
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, err
}
