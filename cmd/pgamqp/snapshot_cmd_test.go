package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

func TestProgressOfSnapshots(t *testing.T) {
	running := func(read, expected int64) catalog.Snapshot {
		return catalog.Snapshot{State: "running", RowsRead: read, RowsExpected: expected}
	}
	done := catalog.Snapshot{State: "done", RowsRead: 100, RowsExpected: 900}
	for _, c := range []struct {
		name  string
		all   []catalog.Snapshot
		share string // of the last one
		full  int    // cells of 24
		line  string
	}{
		{"the start", []catalog.Snapshot{running(0, 1000)}, "0 %", 0, "0 of about 1000 rows"},
		{"half", []catalog.Snapshot{running(500, 1000)}, "50 %", 12, "500 of about 1000 rows, 10s left"},
		{"more than was expected", []catalog.Snapshot{running(1500, 1000)}, "99 %", 24, "1500 of about 1500 rows"},
		{"not known", []catalog.Snapshot{running(500, 0)}, "?", 0, "500 of ? rows"},
		{"not known of one", []catalog.Snapshot{running(500, 1000), running(0, 0)}, "?", 0, "500 of ? rows"},
		{"one is done", []catalog.Snapshot{running(0, 100), done}, "100 %", 12, "100 of about 200 rows, 10s left"},
	} {
		read, expected := progress(c.all)
		got := bar(read, expected) + left(read, expected-read, 10*time.Second)
		if want := strings.Repeat("█", c.full) + strings.Repeat("░", 24-c.full) + " " + c.line; got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
		if got := share(c.all[len(c.all)-1]); got != c.share {
			t.Errorf("%s: %q, want %q", c.name, got, c.share)
		}
	}
	if got := left(0, 10, time.Second); got != "" {
		t.Errorf("before the first row: %q", got)
	}
}
