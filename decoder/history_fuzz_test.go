package decoder_test

import (
	"slices"
	"testing"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// FuzzParseHistory: timelines that are read are in order, and each position belongs to one of them.
func FuzzParseHistory(f *testing.F) {
	for _, s := range []string{
		"1\t0/1500000\tno recovery target specified\n\n2\t0/2A00000\tbefore 2000-01-01 00:00:00+00\n",
		"# a comment\n\n1 0/0", "1\t0/2\n2\t0/1\n", "2\t0/1\n1\t0/2\n", "1", "x\t0/1", "1\tFFFFFFFF/FFFFFFFF\t", "-1 0/1", "1\t0/1 2\t0/2",
	} {
		f.Add([]byte(s), uint64(0x1500000))
	}
	f.Fuzz(func(t *testing.T, content []byte, at uint64) {
		all, err := decoder.ParseHistory(content)
		if err != nil {
			return
		}
		last := int32(1 << 30)
		known := []int32{last}
		for i, a := range all {
			known = append(known, a.Timeline)
			if a.Timeline < 1 || i > 0 && (a.Timeline <= all[i-1].Timeline || a.End < all[i-1].End) {
				t.Fatalf("timelines %+v", all)
			}
		}
		s := decoder.Source{SystemID: "7", Timeline: last, Ancestors: all}
		if tli := s.TimelineOf(pglogrepl.LSN(at)); !slices.Contains(known, tli) {
			t.Fatalf("timeline %d of %+v", tli, all)
		}
	})
}
