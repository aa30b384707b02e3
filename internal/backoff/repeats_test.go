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
		// Each attempt has another port at this end.
		{"dial: read tcp 127.0.0.1:40001->127.0.0.1:5672: EOF", 34 * time.Second, true},
		{"dial: read tcp 127.0.0.1:40002->127.0.0.1:5672: EOF", 35 * time.Second, false},
		{"dial: read tcp [::1]:40003->127.0.0.1:5672: EOF", 36 * time.Second, false},
		{"dial: read tcp 127.0.0.1:40004->127.0.0.2:5672: EOF", 37 * time.Second, true},
		{"a: read tcp 127.0.0.1:1->[::1]:5672: EOF, b: write tcp 127.0.0.1:2->[::1]:5672: EOF", 38 * time.Second, true},
		{"a: read tcp 127.0.0.1:3->[::1]:5672: EOF, b: write tcp 127.0.0.1:4->[::1]:5672: EOF", 39 * time.Second, false},
		{"->", 40 * time.Second, true},
	} {
		if got := r.Worth(c.text, start.Add(c.after)); got != c.want {
			t.Errorf("%q after %v: %v, want %v", c.text, c.after, got, c.want)
		}
	}
}
