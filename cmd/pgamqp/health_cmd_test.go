package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthSaysWhatTheDaemonSays(t *testing.T) {
	stuck := func() error { return errors.New("no sign of work for 31s") }
	notReady := func() (string, error) { return "", errors.New("broker 1 is blocked") }
	working, _ := serveHTTP(t, healthy, isReady)
	starting, _ := serveHTTP(t, healthy, notReady)
	hanging, _ := serveHTTP(t, stuck, isReady)
	gone, stop := serveHTTP(t, healthy, isReady)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	never := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-never }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(never) }) // the first of these two

	for _, c := range []struct {
		name, url string
		flags     []string
		code      int
		out, errs string
	}{
		{"works", working, nil, exitOK, "alive\n", ""},
		{"is ready", working, []string{"--ready"}, exitOK, "ready\n", ""},
		{"is alive but not ready", starting, nil, exitOK, "alive\n", ""},
		{"is not ready", starting, []string{"--ready"}, exitFailure, "", "says: not ready: broker 1 is blocked\n"},
		{"hangs", hanging, nil, exitFailure, "", "says: not alive: no sign of work for 31s\n"},
		{"is gone", gone, nil, exitFailure, "", "connection refused\n"},
		{"is another program", other.URL, nil, exitFailure, "", "it answers 404 Not Found\n"},
		{"does not answer", silent.URL, []string{"--timeout", "50ms"}, exitFailure, "", "context deadline exceeded\n"},
		{"is asked without time", working, []string{"--timeout", "0s"}, exitUsage, "", "--timeout 0s: give more than 0s\n"},
	} {
		args := append([]string{"health", "--listen", strings.TrimPrefix(c.url, "http://")}, c.flags...)
		code, out, errs := pgamqp(t, args...)
		if code != c.code || out != c.out || !strings.Contains(errs, c.errs) || (c.errs == "") != (errs == "") {
			t.Errorf("a daemon that %s: exit code %d, stdout %q, stderr %q", c.name, code, out, errs)
		}
	}
	// In a container the daemon listens on all addresses, and the check has the same settings.
	_, port, _ := strings.Cut(strings.TrimPrefix(working, "http://"), ":")
	t.Setenv("PGAMQP_LISTEN", ":"+port)
	if code, out, errs := pgamqp(t, "health"); code != exitOK || out != "alive\n" {
		t.Errorf("a daemon on all addresses: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}
