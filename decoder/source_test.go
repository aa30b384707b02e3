package decoder_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
)

func TestP50IDNamesTheTimelineThatWroteTheRecord(t *testing.T) {
	promoted := decoder.Source{SystemID: "70ab", Timeline: 5, Ancestors: []decoder.Ancestor{
		{Timeline: 1, End: 0x1000}, {Timeline: 3, End: 0x1_00000000}, {Timeline: 4, End: 0x1_00000000},
	}}
	for _, c := range []struct {
		source decoder.Source
		lsn    pglogrepl.LSN
		want   string
	}{
		{source(), 0x1581C38, "7423456789012345678-1-0/1581C38"},
		{source(), 0xABCDEF_00ABCDEF, "7423456789012345678-1-ABCDEF/ABCDEF"},
		{source(), 0xFFFFFFFF_FFFFFFFF, "7423456789012345678-1-FFFFFFFF/FFFFFFFF"},
		{decoder.Source{Timeline: 2147483647}, 1, "-2147483647-0/1"},
		// A record that ends where the next timeline begins is the old one's.
		{promoted, 0xFFF, "70ab-1-0/FFF"},
		{promoted, 0x1000, "70ab-1-0/1000"},
		{promoted, 0x1001, "70ab-3-0/1001"},
		{promoted, 0x1_00000000, "70ab-3-1/0"},
		{promoted, 0x1_00000001, "70ab-5-1/1"}, // nothing was written on timeline 4
	} {
		if got := c.source.ID(c.lsn); got != c.want {
			t.Errorf("%s on timeline %d: %q, want %q", c.lsn, c.source.Timeline, got, c.want)
		}
	}
}

func TestIDEndsInThePositionAsPostgreSQLPrintsIt(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		lsn := pglogrepl.LSN(rapid.Uint64().Draw(r, "lsn"))
		id := source().ID(lsn)
		text := id[strings.LastIndexByte(id, '-')+1:]
		if back, err := pglogrepl.ParseLSN(text); err != nil || back != lsn || text != lsn.String() {
			r.Fatalf("%s became %q", lsn, id)
		}
	})
}

func TestHistoryFilesAreRead(t *testing.T) {
	const written = "1\t0/16B3740\tno recovery target specified\n\n# a comment\n 2\t1/A0000000\tbefore 2024-02-29 12:00:00+00\n"
	got, err := decoder.ParseHistory([]byte(written))
	want := []decoder.Ancestor{{Timeline: 1, End: 0x16B3740}, {Timeline: 2, End: 0x1_A0000000}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, want -, got +:\n%s", err, diff)
	}
	if got, err := decoder.ParseHistory(nil); err != nil || got != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

func TestBrokenHistoryFilesAreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"no position":          "1\n",
		"no number":            "one\t0/1\tx\n",
		"no such position":     "1\t0-1\tx\n",
		"a number too large":   "4294967296\t0/1\tx\n",
		"positions go back":    "1\t0/200\tx\n2\t0/100\tx\n",
		"timelines go back":    "2\t0/100\tx\n1\t0/200\tx\n",
		"a timeline repeated":  "1\t0/100\tx\n1\t0/200\tx\n",
		"a line of a megabyte": strings.Repeat("x", 1<<20),
	} {
		if got, err := decoder.ParseHistory([]byte(text)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}
