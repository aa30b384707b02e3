package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// newTestDaemon is one that is not started; its database is at an address.
func newTestDaemon(t *testing.T, address string) *daemon {
	t.Helper()
	cfg := config.Default()
	cfg.DatabaseURL = config.ConnString(fmt.Sprintf("postgres://u@%s/d?sslmode=disable", address))
	d, err := newDaemon(t.Context(), cfg, slog.New(slog.DiscardHandler), newRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

// closedAddress is where nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	port, release, err := testserver.ClosedPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// until waits until something is so that nobody tells.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	const limit = 15 * time.Second
	for deadline := time.After(limit); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// A supervisor would kill a daemon that waits for its database, or for a promotion, over and
// over: each attempt is a sign of work.
func TestO04DaemonThatWaitsForItsDatabaseIsAlive(t *testing.T) {
	t.Parallel()
	d := newTestDaemon(t, closedAddress(t))
	made := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.preflight(ctx) }()
	for range 3 {
		until(t, "it tries again", func() bool {
			since := time.Since(made)
			return d.session.Stuck() < since
		})
		made = time.Now()
	}
	if err := d.live(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
