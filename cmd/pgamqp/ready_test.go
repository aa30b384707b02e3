package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/publisher"
)

func TestO04NotReadyMeansThatMessagesWaitWithoutProgress(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		lane publisher.LaneStatus
		want string
	}{
		"at work":              {publisher.LaneStatus{Held: 3, Still: ago(time.Second)}, ""},
		"down with no work":    {publisher.LaneStatus{Down: ago(time.Hour), Err: refused}, ""},
		"down for a moment":    {publisher.LaneStatus{Held: 3, Down: ago(time.Second), Still: ago(2 * time.Second), Err: refused}, ""},
		"down":                 {publisher.LaneStatus{Broker: 1, Held: 3, Down: ago(time.Minute), Still: ago(time.Second), Err: refused}, "broker 1 takes no messages for 1m0s, 3 wait: refused"},
		"down again and again": {publisher.LaneStatus{Broker: 1, Held: 3, Down: ago(time.Second), Still: ago(time.Minute), Err: refused}, "broker 1 takes no messages for 1m0s, 3 wait: refused"},
		"never confirms":       {publisher.LaneStatus{Broker: 1, Held: 3, Still: ago(11 * time.Second)}, "broker 1 has confirmed nothing for 11s, 3 wait: it takes messages and does not confirm them"},
		"nacks":                {publisher.LaneStatus{Broker: 1, Held: 3, Still: ago(11 * time.Second), Err: refused}, "broker 1 has confirmed nothing for 11s, 3 wait: refused"},
	} {
		got := ""
		if err := standstill(c.lane, now); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What a message waits for in the database holds up all that follows it.
func TestO04NotReadyMeansThatTheDatabaseIsAskedInVain(t *testing.T) {
	t.Parallel()
	d := newTestDaemon(t, closedAddress(t))
	for name, c := range map[string]struct {
		wait func(context.Context) error
		want string
	}{
		"routes": {func(ctx context.Context) error {
			return d.routing.routesChanged(ctx, &decoder.Message{})
		}, ": ask for a change of amqp.route: "},
		"definitions": {func(ctx context.Context) error {
			return d.publisher.Publish(ctx, decoder.Message{Prefix: decoder.Prefix}, func() { t.Error("done") })
		}, ": read amqp.broker"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.wait(ctx) }()
		until(t, name, func() bool {
			err := flows(d.publisher, d.routing, time.Now().Add(time.Minute))
			return err != nil && strings.HasPrefix(err.Error(), "messages wait for the database for 1m") && strings.Contains(err.Error(), c.want)
		})
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if err := flows(d.publisher, d.routing, time.Now().Add(time.Minute)); err != nil {
			t.Errorf("%s: when it is over it says %v", name, err)
		}
	}
}
