package replication

import (
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// An operation of these benchmarks is a message, unless its name says otherwise.

func BenchmarkTracker(b *testing.B) {
	now := time.Now()
	for _, c := range []struct {
		name           string
		perTransaction int
	}{{"transaction=1", 1}, {"transaction=1000", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			t := NewTracker(start, nil)
			lsn := start
			var unit *Unit
			var dones []func()
			b.ReportAllocs()
			for b.Loop() {
				if unit == nil {
					unit = t.Open(now)
				}
				if dones = append(dones, unit.Add()); len(dones) < c.perTransaction {
					continue
				}
				lsn += 8
				if err := unit.Seal(lsn); err != nil {
					b.Fatal(err)
				}
				for _, done := range dones {
					done()
				}
				unit, dones = nil, dones[:0]
			}
		})
	}
	// A window full of units that finish in the worst order: the last one first.
	for _, window := range []int{64, 2048, 16384} {
		b.Run("backwards/window="+strconv.Itoa(window), func(b *testing.B) {
			t := NewTracker(start, nil)
			lsn := start
			dones := make([]func(), 0, window)
			b.ReportAllocs()
			for b.Loop() {
				unit := t.Open(now)
				dones = append(dones, unit.Add())
				lsn += 8
				if err := unit.Seal(lsn); err != nil {
					b.Fatal(err)
				}
				if len(dones) == window {
					for i := window - 1; i >= 0; i-- {
						dones[i]()
					}
					dones = dones[:0]
				}
			}
		})
	}
}

func BenchmarkInbox(b *testing.B) {
	box := newInbox(512, 1<<20)
	d := delivery{message: decoder.Message{LSN: pglogrepl.LSN(1), Content: make([]byte, 250)}, done: func() {}}
	var batch []delivery
	b.ReportAllocs()
	for b.Loop() {
		if !box.offer(d) {
			clear(batch)
			batch = box.take(b.Context(), batch)
			box.offer(d)
		}
	}
}
