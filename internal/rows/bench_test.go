package rows

import (
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
)

// BenchmarkMessages is what a row costs between the decoder and the publisher, by format.
func BenchmarkMessages(b *testing.B) {
	for format, r := range formatsOf() {
		b.Run(string(format), func(b *testing.B) {
			router, m := routerOf(b, r), insertedOrder()
			b.ReportAllocs()
			for b.Loop() {
				if out, err := router.Messages(b.Context(), m); err != nil || len(out) != 1 {
					b.Fatalf("%d messages, %v", len(out), err)
				}
			}
		})
	}
}

// insertedOrder is a row as tables have them.
func insertedOrder() *decoder.Message {
	rel := &decoder.Relation{OID: 1, Schema: "public", Name: "orders", Columns: []decoder.Column{
		{Name: "id", Key: true, Type: 20, Modifier: -1},
		{Name: "customer", Type: 23, Modifier: -1},
		{Name: "amount", Type: 1700, Modifier: 655366},
		{Name: "at", Type: 1184, Modifier: -1},
		{Name: "note", Type: 25, Modifier: -1},
	}}
	return messageOf(decoder.Change{Op: decoder.OpInsert, Relation: rel, New: tuple("123456", "4711", "12.50", "2026-01-02 03:04:05.123456+00", "a note of some words, as people write")})
}

// TestRowAllocatesNoMoreThanWhatIsRecorded: what one more allocation costs for each row is worth a look.
func TestRowAllocatesNoMoreThanWhatIsRecorded(t *testing.T) {
	for format, most := range map[Format]float64{FormatJSON: 4, FormatDebezium: 5, FormatCloudEvents: 23, FormatStructured: 16} {
		router, m := routerOf(t, formatsOf()[format]), insertedOrder()
		got := testing.AllocsPerRun(1000, func() {
			if _, err := router.Messages(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		})
		if got > most {
			t.Errorf("%s: %v allocations a row, recorded are %v", format, got, most)
		}
	}
}
