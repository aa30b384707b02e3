package backoff_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

func TestDelaysStayWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		duration := rapid.OneOf(rapid.Int64Range(-1, int64(time.Minute)), rapid.Int64Range(math.MaxInt64-1000, math.MaxInt64))
		minimum, maximum := time.Duration(duration.Draw(t, "min")), time.Duration(duration.Draw(t, "max"))
		b := backoff.New(minimum, maximum)
		minimum = max(minimum, time.Millisecond)
		maximum = max(minimum, maximum)
		ceiling := float64(minimum)
		for range rapid.IntRange(1, 80).Draw(t, "attempts") {
			d := b.Next()
			if d < minimum || d > maximum || float64(d) > ceiling {
				t.Fatalf("delay %v, want %v to %v", d, minimum, time.Duration(min(ceiling, float64(maximum))))
			}
			ceiling *= 2
		}
		b.Reset()
		if d := b.Next(); d != minimum {
			t.Fatalf("first delay after a success is %v, want %v", d, minimum)
		}
	})
}

func TestP55DelaysGrowAndDiffer(t *testing.T) {
	const rounds = 200
	var first, last time.Duration
	seen := map[time.Duration]bool{}
	for range rounds {
		b := backoff.New(10*time.Millisecond, 10*time.Second)
		first += b.Next()
		for range 12 {
			b.Next()
		}
		d := b.Next()
		last += d
		seen[d] = true
	}
	if first != rounds*10*time.Millisecond {
		t.Errorf("first delays add up to %v, want exactly the minimum each", first)
	}
	if mean := last / rounds; mean < 4*time.Second || mean > 6*time.Second {
		t.Errorf("late delays are %v on average, want about half of 10s", mean)
	}
	if len(seen) < rounds/2 {
		t.Errorf("%d different delays in %d rounds", len(seen), rounds)
	}
}

func TestWaitLastsAsLongAsTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := backoff.New(2*time.Second, time.Minute).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("waited %v, want 2s", d)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("stopped by the test")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		start := time.Now()
		if err := backoff.New(time.Hour, time.Hour).Wait(ctx); !errors.Is(err, why) {
			t.Errorf("error %v, want %v", err, why)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("waited %v, want 1s", d)
		}
	})
}
