package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/page"
)

func statusPage(t *testing.T, reg *prometheus.Registry, ready func() (string, error)) *page.Page {
	t.Helper()
	p, err := page.New(reg, ready, page.NewJournal(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serveHTTP starts a server on a port of its own and returns its URL; stop waits until Run has ended.
func serveHTTP(t *testing.T, live func() error, ready func() (string, error)) (url string, stop func() error) {
	t.Helper()
	listener, err := listenHTTP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	reg := newRegistry()
	status := statusPage(t, reg, ready)
	go func() {
		ended <- newHTTPServer(reg, status, live, ready, slog.New(slog.DiscardHandler)).Run(ctx, listener)
	}()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the server does not stop")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + listener.Addr().String(), stop
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func healthy() error { return nil }

func isReady() (string, error) { return "ready", nil }

func TestO04HealthAnswersSayWhatIsWrong(t *testing.T) {
	type answer struct {
		state string
		err   error
	}
	var now atomic.Pointer[answer]
	check := func() (string, error) { return now.Load().state, now.Load().err }
	url, _ := serveHTTP(t, healthy, check)
	for _, step := range []struct {
		answer answer
		code   int
		body   string
	}{
		{answer{state: "ready"}, 200, "ready\n"},
		{answer{state: "standby"}, 200, "standby\n"},
		{answer{err: errors.New("broker 1 is blocked\nlag is 70 s")}, 503, "not ready: broker 1 is blocked\nlag is 70 s\n"},
	} {
		now.Store(&step.answer)
		if code, body := get(t, url+"/readyz"); code != step.code || body != step.body {
			t.Errorf("/readyz: %d %q, want %d %q", code, body, step.code, step.body)
		}
		if code, body := get(t, url+"/healthz"); code != 200 || body != "alive\n" {
			t.Errorf("/healthz: %d %q", code, body)
		}
	}
}

func TestMetricsOfTheProcessAreThereAndWellFormed(t *testing.T) {
	url, _ := serveHTTP(t, healthy, isReady)
	get(t, url+"/metrics") // the second scrape sees the first one's own metrics
	code, body := get(t, url+"/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{"pgamqp_build_info{", "go_goroutines ", "process_open_fds ", "process_resident_memory_bytes "} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(body)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	url, _ := serveHTTP(t, healthy, isReady)
	if code, body := get(t, url+"/"); code != 200 || !strings.Contains(body, "/metrics") {
		t.Errorf("/: %d %s", code, body)
	}
	if code, _ := get(t, url+"/debug/pprof/"); code != 404 {
		t.Errorf("unknown path: %d", code)
	}
	response, err := http.Post(url+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 405 {
		t.Errorf("POST: %d", response.StatusCode)
	}
}

func TestRequestInHandIsAnsweredBeforeTheStop(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	url, stop := serveHTTP(t, func() error { close(entered); <-leave; return nil }, isReady)
	answered := make(chan string, 1)
	go func() {
		response, err := http.Get(url + "/healthz")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		answered <- string(body)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(leave)
	if got := <-answered; got != "alive\n" {
		t.Errorf("answer %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStuckClientDoesNotHoldUpTheStop(t *testing.T) {
	url, stop := serveHTTP(t, healthy, isReady)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost:"); err != nil { // and never the rest
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestEveryDeadlineIsSet(t *testing.T) {
	reg := newRegistry()
	s := newHTTPServer(reg, statusPage(t, reg, isReady), healthy, isReady, slog.New(slog.DiscardHandler)).server
	if s.ReadTimeout == 0 || s.ReadHeaderTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 {
		t.Errorf("%+v", s)
	}
}

func TestBusyPortIsAnErrorThatSaysSo(t *testing.T) {
	taken, err := listenHTTP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, err = listenHTTP(t.Context(), taken.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "another process uses the port") {
		t.Errorf("error %v", err)
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[config.LogFormat]string{
		config.LogText: `level=WARN msg=blocked broker=1 reason="a\nlevel=ERROR \x1b[2J"` + "\n",
		config.LogJSON: `"level":"WARN","msg":"blocked","broker":1,"reason":"a\nlevel=ERROR \u001b[2J"}` + "\n",
	} {
		var out bytes.Buffer
		log := newLogger(&out, format, slog.LevelWarn)
		log.Info("not shown")
		log.Warn("blocked", slog.Int("broker", 1), slog.String("reason", "a\nlevel=ERROR \x1b[2J")) // what a broker says makes no line of its own
		if !strings.HasSuffix(out.String(), want) || strings.Contains(out.String(), "not shown") {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}

func TestEveryAnswerKeepsBrowsersFromGuessing(t *testing.T) {
	url, _ := serveHTTP(t, healthy, isReady)
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/nothing"} {
		response, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'"} {
			if got := response.Header.Get(header); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q, want %q", path, header, got, want)
			}
		}
	}
}
