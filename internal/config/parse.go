package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

func showPlain[T ~string](s T) string { return string(s) }

func parsePlain[T ~string](s string) (T, error) { return T(s), nil }

func showCount(n int) string { return strconv.Itoa(n) }

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number: write digits only, such as 2048", s)
	}
	return n, nil
}

func showDuration(d time.Duration) string { return d.String() }

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: write a number with a unit, such as 30s or 500ms", s)
	}
	return d, nil
}

// byteUnit is a suffix of a size. The longest comes first, so that B does not match the end of MiB.
type byteUnit struct {
	suffix string
	factor int64
}

func byteUnits() []byteUnit {
	return []byteUnit{
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"B", 1},
		{"", 1},
	}
}

// parseBytes reads a size: a whole number and a unit, with or without a space, upper or lower case alike.
func parseBytes(s string) (int64, error) {
	bad := fmt.Errorf("%q is not a size: write a whole number and a unit out of B, KiB, MiB, GiB, kB, MB, GB, such as 32MiB", s)
	for _, u := range byteUnits() {
		if len(s) < len(u.suffix) || !strings.EqualFold(s[len(s)-len(u.suffix):], u.suffix) {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(s[:len(s)-len(u.suffix)]), 10, 64)
		if errors.Is(err, strconv.ErrRange) || n > math.MaxInt64/u.factor || n < math.MinInt64/u.factor {
			return 0, fmt.Errorf("%q is more than this machine can count", s)
		}
		if err != nil {
			return 0, bad
		}
		return n * u.factor, nil
	}
	return 0, bad
}

// showBytes uses the largest binary unit that leaves a whole number.
func showBytes(n int64) string {
	for _, u := range byteUnits()[:3] {
		if n >= u.factor && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

func showLevel(l slog.Level) string { return strings.ToLower(l.String()) }

func parseLevel(s string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if strings.EqualFold(s, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is not a log level: write debug, info, warn or error", s)
}

func parseFormat(s string) (LogFormat, error) {
	switch f := LogFormat(strings.ToLower(s)); f {
	case LogText, LogJSON:
		return f, nil
	}
	return "", fmt.Errorf("%q is not a log format: write text or json", s)
}

func showHeaders(headers []PGHeader) string {
	names := make([]string, len(headers))
	for i, h := range headers {
		names[i] = string(h)
	}
	return strings.Join(names, ",")
}

func parseHeaders(s string) ([]PGHeader, error) {
	known := []PGHeader{HeaderLSN, HeaderXID, HeaderCommitTime, HeaderRole}
	var headers []PGHeader
	for name := range strings.SplitSeq(s, ",") {
		h := PGHeader(strings.TrimSpace(name))
		switch {
		case h == "":
		case !slices.Contains(known, h):
			return nil, fmt.Errorf("%q is not a header about the origin: write some of %s, with commas between them", h, showHeaders(known))
		case slices.Contains(headers, h):
			return nil, fmt.Errorf("%q is in the list twice: write it once", h)
		default:
			headers = append(headers, h)
		}
	}
	return headers, nil
}
