package publisher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

var errAway = errors.New("connection refused")

// tries lets hosts fail for some time, each in its way, and returns when each was
// tried.
func tries(t *testing.T, period time.Duration, took time.Duration, failures ...error) [][]time.Duration {
	t.Helper()
	turns := newTurns(len(failures))
	began := time.Unix(1_000_000, 0)
	at := make([][]time.Duration, len(failures))
	for now := began; now.Sub(began) < period; {
		host, wait := turns.pick(now)
		if wait < 0 {
			t.Fatalf("wait %s", wait)
		}
		now = now.Add(wait)
		at[host] = append(at[host], now.Sub(began))
		now = now.Add(took)
		turns.failed(host, failures[host], took, now)
	}
	return at
}

func TestDeadHostsAreNotTriedInAHotLoop(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for _, c := range []struct {
		name         string
		failures     []error
		least, most  int // attempts in an hour, of each
		longestPause time.Duration
	}{
		{"away", []error{errAway}, 3500, 11000, unreachableMax},
		{"three away", []error{errAway, errAway, errAway}, 3500, 11000, unreachableMax},
		{"denied", []error{amqp.ErrCredentials}, 120, 400, deniedMax},
		{"no virtual host", []error{&amqp.Error{Code: 530, Server: true}, amqp.ErrVhost}, 120, 400, deniedMax},
	} {
		for host, at := range tries(t, hour, time.Millisecond, c.failures...) {
			if len(at) < c.least || len(at) > c.most {
				t.Errorf("%s: host %d was tried %d times", c.name, host, len(at))
			}
			for i := 1; i < len(at); i++ {
				if pause := at[i] - at[i-1]; pause < unreachableMin || pause > c.longestPause+50*time.Millisecond {
					t.Fatalf("%s: host %d rests for %s", c.name, host, pause)
				}
			}
		}
	}
	// One that refuses the login does not slow down one that may come back, nor the other way round.
	at := tries(t, hour, time.Millisecond, amqp.ErrCredentials, errAway)
	if len(at[0]) > 400 || len(at[1]) < 1700 {
		t.Errorf("tried %d and %d times", len(at[0]), len(at[1]))
	}
}

func TestNextHostIsTriedAtOnceAndInTurn(t *testing.T) {
	t.Parallel()
	turns := newTurns(3)
	now := time.Unix(1_000_000, 0)
	var got []int
	for range 3 {
		host, wait := turns.pick(now)
		if wait != 0 {
			t.Errorf("host %d has to wait for %s", host, wait)
		}
		got = append(got, host)
		turns.failed(host, errAway, 0, now)
	}
	if !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("tried %v", got)
	}
	if _, wait := turns.pick(now); wait < unreachableMin {
		t.Errorf("the second round begins after %s", wait)
	}
	// A connection that has ended without an error (amqp.disconnect) is made anew at the same host.
	turns = newTurns(2)
	for range 2 {
		if host, wait := turns.pick(now); host != 0 || wait != 0 {
			t.Errorf("host %d after %s", host, wait)
		}
	}
}

func TestConnectionThatLastedMakesUpForFailures(t *testing.T) {
	t.Parallel()
	turns := newTurns(1)
	now := time.Unix(1_000_000, 0)
	for range 20 {
		turns.failed(0, errAway, 0, now)
	}
	turns.failed(0, errAway, 2*lastingConnection, now)
	if _, wait := turns.pick(now); wait != unreachableMin {
		t.Errorf("tried again after %s", wait)
	}
}

func TestDeadHostsAreFewLinesInTheLog(t *testing.T) {
	t.Parallel()
	turns := newTurns(2)
	now := time.Unix(1_000_000, 0)
	lines := 0
	for i := range 200 { // 20 s
		now = now.Add(100 * time.Millisecond)
		if turns.failed(i%2, fmt.Errorf("host %d is away", i%2), 0, now) {
			lines++
		}
	}
	if lines != 2 {
		t.Errorf("%d lines", lines)
	}
}

// A host whose turn has not come is tried at once when it is another.
func TestChangedHostIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBareLane(t)
		l.update(Broker{ID: 1, Hosts: []Host{{Problem: "as it was"}}}) // fails without a network
		ctx, cancel := context.WithCancel(t.Context())
		go l.run(ctx)
		<-time.After(time.Minute)
		l.update(Broker{ID: 1, Hosts: []Host{{Problem: "as it is now"}}})
		synctest.Wait()
		if err := l.status().Err; err == nil || !strings.Contains(err.Error(), "as it is now") {
			t.Errorf("tried last: %v", err)
		}
		cancel()
		<-l.ended
	})
}

func TestChangedPasswordIsTriedAfterRefusedLogins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll, Login: func(_, password string) error {
		if password != "right" {
			return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED - Login was refused"}
		}
		return nil
	}}, nil)
	w.to("x", "a")
	until(t, "some refusals", func() bool { return w.counted("pgamqp_broker_connects_total", "denied") >= 2 })
	b := brokerAt(1, w.Server)
	b.Hosts[0].Password = "right"
	w.define(true, b)
	w.awaitAll()
	w.noLetters()
}
