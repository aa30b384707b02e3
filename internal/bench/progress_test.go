package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestPlainProgress(t *testing.T) {
	var b strings.Builder
	p := NewProgress(&b, false)
	p.Begin(0, 0, "delivery: preparing")
	p.At(0.5)
	p.End("")
	p.Begin(11, 40, "delivery: pgamqp, 1/tx")
	p.At(0.5)
	p.End("24.1 k messages/s")
	p.Begin(12, 40, "delivery: limit")
	p.End("")
	const want = `delivery: preparing
12/40 delivery: pgamqp, 1/tx: 24.1 k messages/s
13/40 delivery: limit
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestLiveProgress(t *testing.T) {
	var b strings.Builder
	var now time.Time
	p := &liveProgress{out: &b, now: func() time.Time { return now }}
	bar := func(cells int) string { return strings.Repeat("█", cells) + strings.Repeat("░", 24-cells) }
	for _, do := range []struct {
		name string
		wait time.Duration
		call func()
		want string // without \r and the rest that each line has; empty: nothing is drawn
	}{
		{"prepare", 0, func() { p.Begin(0, 0, "sql: preparing") }, bar(0) + " sql: preparing 0 %"},
		{"half prepared", time.Minute, func() { p.At(0.5) }, bar(0) + " sql: preparing 50 %"},
		{"prepared", 0, func() { p.End("") }, ""},
		{"first", 0, func() { p.Begin(0, 4, "sql: a") }, bar(0) + " 1/4 sql: a 0 %"},
		{"too soon", 99 * time.Millisecond, func() { p.At(0.1) }, ""},
		{"soon enough", time.Millisecond, func() { p.At(0.499) }, bar(2) + " 1/4 sql: a 49 %"},
		{"too soon again", 99 * time.Millisecond, func() { p.At(0.6) }, ""},
		{"no number", time.Second, func() { p.At(math.NaN()) }, ""},
		{"too much", 0, func() { p.At(1.5) }, bar(6) + " 1/4 sql: a 100 %"},
		{"first is done", 98801 * time.Millisecond, func() { p.End("1 s") }, ""},
		{"second", 0, func() { p.Begin(1, 4, "sql: b") }, bar(6) + " 2/4 sql: b 0 %, 5m0s left"},
		{"half of it", 50 * time.Second, func() { p.At(0.5) }, bar(9) + " 2/4 sql: b 50 %, 4m10s left"},
		{"second is done", 150 * time.Second, func() { p.End("2 s") }, ""},
		{"preparing others", time.Hour, func() { p.Begin(0, 0, "tps: preparing") }, bar(12) + " tps: preparing 0 %, 5m0s left"},
		{"others prepared", time.Hour, func() { p.End("") }, ""},
		{"third", 0, func() { p.Begin(2, 4, "tps: a") }, bar(12) + " 3/4 tps: a 0 %, 5m0s left"},
		{"third is done", 150 * time.Second, func() { p.End("3 s") }, ""},
		{"fourth", 0, func() { p.Begin(3, 4, "tps: b") }, bar(18) + " 4/4 tps: b 0 %, 2m30s left"},
	} {
		b.Reset()
		now = now.Add(do.wait)
		do.call()
		want := do.want
		if want != "" {
			want = "\r\x1b[?7l" + want + "\x1b[K\x1b[?7h"
		}
		if b.String() != want {
			t.Errorf("%s: got %q, want %q", do.name, b.String(), want)
		}
	}
	b.Reset()
	p.End("4 s")
	if want := "\r\x1b[K"; b.String() != want {
		t.Errorf("at the end: got %q, want %q", b.String(), want)
	}
}
