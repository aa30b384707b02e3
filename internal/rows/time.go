package rows

import (
	"bytes"
	"strconv"
)

// Microseconds of what times are made of.
const (
	second = int64(1_000_000)
	day    = 86400 * second
	// month is what a month counts in an interval that becomes one number: a twelfth of 365.25 days.
	month = 30*day + 37800*second
)

// maxYear is beyond what a date of PostgreSQL can have.
const maxYear = 6_000_000

// parseDate reads a date in ISO format, with years of any length and before Christ, as days
// since 1970.
func parseDate(text []byte) (days int64, ok bool) {
	text, before := bytes.CutSuffix(text, []byte(" BC"))
	parts := bytes.SplitN(text, []byte("-"), 4)
	if len(parts) != 3 {
		return 0, false
	}
	var n [3]int64
	for i, p := range parts {
		if n[i], ok = digits(p); !ok || n[i] > maxYear {
			return 0, false
		}
	}
	if before {
		n[0] = 1 - n[0] // there is no year 0
	}
	return daysSince1970(n[0], n[1], n[2]), true
}

// daysSince1970 counts days in the Gregorian calendar, which PostgreSQL extends to all years.
// Years begin with March here, so that the day that leap years have comes last.
func daysSince1970(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	ofEra := y - era*400
	ofYear := (153*((m+9)%12)+2)/5 + d - 1
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + ofYear - 719468
}

// parseClock reads hours, minutes, seconds and perhaps their fraction, as microseconds.
func parseClock(text []byte) (micros int64, ok bool) {
	parts := bytes.SplitN(text, []byte(":"), 4)
	if len(parts) != 3 {
		return 0, false
	}
	whole, fraction, _ := bytes.Cut(parts[2], []byte("."))
	for _, p := range [][]byte{parts[0], parts[1], whole} {
		n, isNumber := digits(p)
		if !isNumber || len(p) > 2 {
			return 0, false
		}
		micros = micros*60 + n
	}
	below, ok := microsOf(fraction)
	return micros*second + below, ok
}

// microsOf reads the digits behind a point as microseconds.
func microsOf(fraction []byte) (int64, bool) {
	if len(fraction) == 0 {
		return 0, true
	}
	if len(fraction) > 6 {
		return 0, false
	}
	n, ok := digits(fraction)
	for i := len(fraction); i < 6; i++ {
		n *= 10
	}
	return n, ok
}

// parseZone reads an offset from UTC: a sign, hours, and perhaps minutes and seconds.
func parseZone(text []byte) (micros int64, ok bool) {
	if len(text) < 3 || text[0] != '+' && text[0] != '-' {
		return 0, false
	}
	unit := 3600 * second
	for _, p := range bytes.Split(text[1:], []byte(":")) {
		n, isNumber := digits(p)
		if !isNumber || len(p) > 2 || unit < second {
			return 0, false
		}
		micros += n * unit
		unit /= 60
	}
	if text[0] == '-' {
		micros = -micros
	}
	return micros, true
}

// cutZone cuts the offset off that the text of a time ends with.
func cutZone(text []byte) (clock, zone []byte) {
	if i := bytes.LastIndexAny(text, "+-"); i > 0 {
		return text[:i], text[i:]
	}
	return text, nil
}

// parseTimestamp reads a timestamp, with time zone or without, as microseconds since 1970.
func parseTimestamp(text []byte) (micros int64, ok bool) {
	date, clock, _ := bytes.Cut(text, []byte(" "))
	clock, before := bytes.CutSuffix(clock, []byte(" BC"))
	if before {
		date = append(bytes.Clone(date), " BC"...)
	}
	clock, zone := cutZone(clock)
	days, isDate := parseDate(date)
	time, isTime := parseClock(clock)
	var offset int64
	if zone != nil {
		isZone := false
		if offset, isZone = parseZone(zone); !isZone {
			return 0, false
		}
	}
	micros, fits := plus(time-offset, days, day)
	return micros, isDate && isTime && fits
}

// parseInterval reads an interval in ISO 8601 format, such as P1Y2M-3DT4H-5.6S, as
// microseconds.
func parseInterval(text []byte) (micros int64, ok bool) {
	rest, ok := bytes.CutPrefix(text, []byte("P"))
	if !ok || len(rest) == 0 {
		return 0, false
	}
	units := map[byte]int64{'Y': 12 * month, 'M': month, 'D': day}
	for len(rest) > 0 {
		if rest[0] == 'T' {
			units = map[byte]int64{'H': 3600 * second, 'M': 60 * second, 'S': second}
			rest = rest[1:]
			continue
		}
		number, negative := bytes.CutPrefix(rest, []byte("-"))
		end := bytes.IndexAny(number, "YMDHS")
		if end < 0 {
			return 0, false
		}
		whole, fraction, _ := bytes.Cut(number[:end], []byte("."))
		n, isNumber := digits(whole)
		below, isFraction := microsOf(fraction)
		unit, isUnit := units[number[end]]
		if !isNumber || !isFraction || !isUnit || below != 0 && unit != second {
			return 0, false
		}
		if negative {
			n, below = -n, -below
		}
		var fits, fitsBelow bool
		micros, fits = plus(micros, n, unit)
		micros, fitsBelow = plus(micros, below, 1)
		if !fits || !fitsBelow {
			return 0, false
		}
		rest = number[end+1:]
	}
	return micros, true
}

// digits reads a number that has neither a sign nor more than 18 digits.
func digits(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// plus returns sum + n*unit, and whether 64 bits have room for it. unit is positive.
func plus(sum, n, unit int64) (total int64, fits bool) {
	part := n * unit
	total = sum + part
	return total, part/unit == n && (total < sum) == (part < 0)
}

// floorDiv divides and rounds down.
func floorDiv(a, b int64) int64 {
	if a < 0 {
		return (a+1)/b - 1
	}
	return a / b
}

// appendClock appends a time of the day as 15:04:05.999999, without zeros at the end of the
// fraction.
func appendClock(dst []byte, micros int64) []byte {
	for i, n := range []int64{micros / (3600 * second), micros / (60 * second) % 60, micros / second % 60} {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, byte('0'+n/10), byte('0'+n%10))
	}
	if below := micros % second; below != 0 {
		fraction := strconv.AppendInt(nil, second+below, 10)
		dst = append(append(dst, '.'), bytes.TrimRight(fraction[1:], "0")...)
	}
	return dst
}
