package fakewal_test

import (
	"testing"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// Sizes and order as PostgreSQL 15.20 wrote them: a message outside, one inside,
// one outside of a transaction begun first and committed last.
func TestLogGivesThePositionsOfARealServer(t *testing.T) {
	const base = 0x151FCE8
	l := fakewal.NewLog(base)
	tx := l.Begin()
	x := l.Emit("amqp", []byte("x"))
	y := tx.Emit("amqp", []byte("y"))
	z := l.Emit("amqp", []byte("z"))
	u := tx.Commit()
	got := []pglogrepl.LSN{x.End, y, z.End, u.Start, u.End}
	want := []pglogrepl.LSN{0x151FD20, 0x151FD58, 0x151FD90, 0x151FD90, 0x151FDC0}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("position %d: %s, want %s", i, got[i], want[i])
		}
	}
	if u.Frames[0].WALStart != y || len(u.Frames) != 3 {
		t.Errorf("transaction of %d frames begins at %s", len(u.Frames), u.Frames[0].WALStart)
	}
}

// The rule every consumer relies on: confirming the end of a unit keeps all
// later ones and repeats none; one position more loses the next.
func TestLogSendsAgainWhatWasNotConfirmed(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := fakewal.NewLog(0x1000)
		var units []fakewal.Unit
		var open []*fakewal.Tx
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0:
				units = append(units, l.Emit("amqp", []byte("m")))
			case 1:
				open = append(open, l.Begin())
			case 2:
				for _, tx := range open {
					tx.Emit("amqp", []byte("t"))
				}
			case 3:
				if len(open) > 0 {
					units = append(units, open[0].Commit())
					open = open[1:]
				}
			case 4:
				l.Pad(100)
			}
		}
		if n := len(l.From(0)); n != len(units) {
			r.Fatalf("%d of %d units from the start", n, len(units))
		}
		for i, u := range units {
			if u.Start >= u.End || i > 0 && u.Start < units[i-1].End {
				r.Fatalf("unit %d is %s-%s, behind %s", i, u.Start, u.End, units[i-1].End)
			}
			if n := len(l.From(u.End)); n != len(units)-i-1 {
				r.Fatalf("%d units behind unit %d of %d", n, i, len(units))
			}
			if i+1 < len(units) && units[i+1].Start == u.End && len(l.From(u.End+1)) != len(units)-i-2 {
				r.Fatalf("one position too many lost nothing behind unit %d", i)
			}
		}
		if len(l.From(l.End())) != 0 {
			r.Fatal("something behind the end")
		}
	})
}
