package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// trickle is one session that publishes message after message to one target, each in a transaction
// of its own, until stop. The bodies are those of good, in that order.
type trickle struct {
	w       *world
	end     context.CancelFunc
	ended   sync.WaitGroup
	commits atomic.Int64
	failure error // of the session; to be read behind ended
}

// startTrickle starts to publish to broker 1.
func (w *world) startTrickle(exchange, key string) *trickle {
	w.t.Helper()
	conn := w.connect()
	ctx, end := context.WithCancel(w.t.Context())
	l := &trickle{w: w, end: end}
	l.ended.Go(func() {
		alive := context.WithoutCancel(ctx) // the end cuts off no transaction
		for ctx.Err() == nil {
			n := l.commits.Load() + 1
			limited, cancel := context.WithTimeout(alive, sqlLimit)
			_, err := conn.Exec(limited, `select amqp.publish(1, $1, $2, $3::text)`, exchange, key, fmt.Sprintf("good %d", n))
			cancel()
			if err != nil {
				l.failure = err
				return
			}
			l.commits.Store(n)
			pause(ctx, 5*time.Millisecond)
		}
	})
	w.t.Cleanup(func() {
		end()
		l.ended.Wait()
	})
	return l
}

// waitCommits waits until n more messages are committed.
func (l *trickle) waitCommits(n int64) {
	l.w.t.Helper()
	before := l.commits.Load()
	await(l.w.t, time.Minute, fmt.Sprintf("%d more commits", n), func() bool { return l.commits.Load() >= before+n })
}

// stop ends the session and returns how many messages it has published.
func (l *trickle) stop() int {
	l.w.t.Helper()
	l.end()
	l.ended.Wait()
	if l.failure != nil {
		l.w.t.Errorf("the load has ended: %v", l.failure)
	}
	return int(l.commits.Load())
}

// wantNoneLost waits until all is delivered or a dead letter and fails the test if one of n good
// messages is neither. Then it has the dead letters redelivered, and wants every message to have come.
func (w *world) wantNoneLost(n int, queue string) {
	w.t.Helper()
	got := w.received(1, queue)
	missing := unseen(n, got)
	letters := w.letters()
	for _, l := range letters {
		delete(missing, string(l.Body))
	}
	if len(missing) > 0 {
		w.t.Errorf("%d of %d messages are neither delivered nor dead letters: %v", len(missing), n, missing)
	}
	w.exec(`select amqp.redeliver_all()`)
	got = append(got, w.received(1, queue)...)
	if missing := unseen(n, got); len(missing) > 0 {
		w.t.Errorf("%d of %d messages have not come after the redelivery: %v", len(missing), n, missing)
	}
	c := compare(good(n), got)
	c.want(w.t, "came and was not committed", c.phantom)
	c.want(w.t, "came again under another message_id", c.renamed)
	c.want(w.t, "shared a message_id", c.shared)
	if again := len(c.repeated); again > faultWindow {
		w.t.Errorf("%d messages came again, more than a window holds", again)
	}
	w.t.Logf("%d messages, %d of them were dead letters, %d came again", n, len(letters), len(c.repeated))
}

// unseen returns which of n good messages have not come.
func unseen(n int, got []amqp.Delivery) map[string]bool {
	missing := make(map[string]bool, n)
	for _, body := range good(n) {
		missing[body] = true
	}
	for _, d := range got {
		delete(missing, string(d.Body))
	}
	return missing
}

func TestUnseenFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	missing := unseen(3, []amqp.Delivery{{Body: []byte("good 1")}, {Body: []byte("good 3")}})
	if len(missing) != 1 || !missing["good 2"] {
		t.Errorf("missing: %v", missing)
	}
}
