package publisher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/metrics"
)

// A message at the front keeps the room of those behind it until its channel has ended. Who
// waits then has to hear of that room: nothing else may be about to happen.
func TestRoomBehindAHeldMessageIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(Broker{ID: 1}, Config{WindowMessages: 3, WindowBytes: 1 << 20}, quiet(),
			metrics.NewPublisher(prometheus.NewRegistry()).Broker(1))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var entries []*entry
		for range 3 {
			e := &entry{size: 1, done: func() {}}
			entries = append(entries, e)
			if err := l.add(ctx, e); err != nil || l.take() != e {
				t.Fatal(err)
			}
		}
		added := make(chan error, 1)
		go func() { added <- l.add(ctx, &entry{size: 1, done: func() {}}) }()
		synctest.Wait()
		l.resolve(entries[1], entries[2])
		<-time.After(time.Minute) // whatever looks again by itself has done so
		select {
		case err := <-added:
			t.Fatalf("added to a full window, %v", err)
		default:
		}
		l.rewind()
		synctest.Wait()
		select {
		case err := <-added:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("nothing is added, with room for two")
		}
	})
}

// Whoever counts what all windows hold, which the end of each world checks, does so over their ends.
func TestWhatIsHeldIsNotCountedAfterTheEnd(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	w.inFlight("a", "b")
	if w.held.Load() == 0 {
		t.Error("nothing is held")
	}
}
