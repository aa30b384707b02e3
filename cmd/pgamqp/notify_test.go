package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// systemdSocket stands for systemd and returns what it hears.
func systemdSocket(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 4096)
		n, err := socket.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
}

func TestSystemdHearsHowItGoes(t *testing.T) {
	next := systemdSocket(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, stop := context.WithCancel(t.Context())
	var stuck atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		notifySystemd(ctx, func() error {
			if stuck.Load() {
				return errors.New("stuck")
			}
			return nil
		}, func() (string, error) { return "", errors.New("broker 1 is away\nbroker 2, too") }, slog.New(slog.DiscardHandler))
	}()
	if got := next(); got != "READY=1\nSTATUS=starting" {
		t.Errorf("first it hears %q", got)
	}
	const well = "STATUS=broker 1 is away; broker 2, too\nWATCHDOG=1"
	if got := next(); got != well {
		t.Errorf("then %q", got)
	}
	stuck.Store(true)
	got := next()
	for ; got == well; got = next() { // what was under way
	}
	if strings.Contains(got, "WATCHDOG") {
		t.Errorf("the watchdog is fed by a process that is stuck: %q", got)
	}
	stop()
	for ; !strings.Contains(got, "STOPPING=1"); got = next() {
	}
	<-ended
}

func TestWithoutSystemdNothingIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	notifySystemd(t.Context(), nil, nil, slog.New(slog.DiscardHandler)) // returns
}
