package backoff_test

import (
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

func TestO08RepeatsAreWorthALineEveryHalfMinute(t *testing.T) {
	var r backoff.Repeats
	start := time.Now()
	for _, c := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"refused", 0, true},
		{"refused", time.Second, false},
		{"refused", 29 * time.Second, false},
		{"refused", 30 * time.Second, true},
		{"refused", 31 * time.Second, false},
		{"no route", 32 * time.Second, true},
		{"refused", 33 * time.Second, true},
	} {
		if got := r.Worth(c.text, start.Add(c.after)); got != c.want {
			t.Errorf("%q after %v: %v, want %v", c.text, c.after, got, c.want)
		}
	}
}
