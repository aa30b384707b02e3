package replication

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
)

// sized is a delivery that counts as n bytes.
func sized(n int) delivery {
	return delivery{message: decoder.Message{Content: make([]byte, n-128)}}
}

func TestInboxIsBoundedByCountAndBytes(t *testing.T) {
	for _, c := range []struct {
		name     string
		offered  []int
		accepted []bool
	}{
		{"count", []int{128, 128, 128, 128}, []bool{true, true, true, false}},
		{"bytes to the last one", []int{500, 500}, []bool{true, true}},
		{"one byte more", []int{500, 501}, []bool{true, false}},
		{"a large one alone", []int{5000, 128}, []bool{true, false}},
		{"a large one behind another", []int{128, 5000, 128}, []bool{true, false, true}},
	} {
		b := newInbox(3, 1000)
		for i, n := range c.offered {
			if got := b.offer(sized(n)); got != c.accepted[i] {
				t.Errorf("%s: offer %d of %d bytes: %t", c.name, i, n, got)
			}
		}
	}
}

// A plain list with the same bounds behaves in the same way.
func TestInboxAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		maxCount, maxBytes := rapid.IntRange(1, 5).Draw(r, "count"), rapid.IntRange(128, 1000).Draw(r, "bytes")
		b := newInbox(maxCount, maxBytes)
		var model []int
		bytes := 0
		var spare []delivery
		r.Repeat(map[string]func(*rapid.T){
			"": func(r *rapid.T) {
				if b.size() != bytes {
					r.Fatalf("%d bytes, want %d", b.size(), bytes)
				}
			},
			"offer": func(r *rapid.T) {
				n := rapid.IntRange(128, 1200).Draw(r, "size")
				want := len(model) == 0 || len(model) < maxCount && bytes+n <= maxBytes
				if got := b.offer(sized(n)); got != want {
					r.Fatalf("offered %d bytes to %v: %t", n, model, got)
				}
				if want {
					model, bytes = append(model, n), bytes+n
				}
			},
			"take": func(r *rapid.T) {
				if len(model) == 0 {
					r.Skip("it would block")
				}
				clear(spare)
				spare = b.take(context.Background(), spare)
				var got []int
				for _, d := range spare {
					got = append(got, d.size())
				}
				if !slices.Equal(got, model) {
					r.Fatalf("took %v, want %v", got, model)
				}
				model, bytes = nil, 0
			},
		})
	})
}

func TestTakeWaitsForAnOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox(3, 1000)
		taken := make(chan int, 1)
		go func() { taken <- len(b.take(t.Context(), nil)) }()
		synctest.Wait()
		if len(taken) != 0 {
			t.Fatal("something was taken from an empty inbox")
		}
		b.offer(sized(128))
		if n := <-taken; n != 1 {
			t.Errorf("took %d", n)
		}
		select {
		case <-b.emptied:
		default:
			t.Error("no word that there is room again")
		}
	})
}

func TestClosedInboxGivesWhatIsLeftThenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newInbox(3, 1000)
		b.offer(sized(128))
		b.close()
		if got := b.take(t.Context(), nil); len(got) != 1 {
			t.Errorf("took %d", len(got))
		}
		if got := b.take(t.Context(), nil); got != nil {
			t.Errorf("took %d from a closed inbox", len(got))
		}
		waiting := newInbox(3, 1000)
		taken := make(chan []delivery, 1)
		go func() { taken <- waiting.take(t.Context(), nil) }()
		synctest.Wait()
		waiting.close()
		if got := <-taken; got != nil {
			t.Errorf("took %d from an inbox that was closed meanwhile", len(got))
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		taken := make(chan []delivery, 1)
		go func() { taken <- newInbox(3, 1000).take(ctx, nil) }()
		synctest.Wait()
		cancel()
		if got := <-taken; got != nil {
			t.Errorf("took %d", len(got))
		}
	})
}
