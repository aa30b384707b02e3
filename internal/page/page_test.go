package page

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is the metrics of one with two brokers, the second of which is down.
func daemon() (*prometheus.Registry, *prometheus.CounterVec) {
	reg := prometheus.NewRegistry()
	gauge := func(name string, value float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "pgamqp", Name: name, ConstLabels: labels})
		reg.MustRegister(g)
		g.Set(value)
	}
	gauge("build_info", 1, prometheus.Labels{"version": "v1.2.3"})
	gauge("replication_state", 1, prometheus.Labels{"slot": "shop", "state": "streaming"})
	gauge("lag_seconds", 1.5, prometheus.Labels{"slot": "shop"})
	gauge("slot_lag_bytes", 3<<20, prometheus.Labels{"slot": "shop"})
	gauge("dead_letter_messages", 7, nil)
	gauge("broker_connected", 1, prometheus.Labels{"broker": "1", "host": "a:5672"})
	gauge("broker_connected", 0, prometheus.Labels{"broker": "2", "host": "<script>alert(1)</script>"})
	confirmed := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pgamqp", Name: "confirmed_messages_total"}, []string{"broker", "exchange"})
	letters := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "pgamqp", Name: "dead_lettered_messages_total"}, []string{"broker", "reason"})
	reg.MustRegister(confirmed, letters)
	confirmed.WithLabelValues("1", "x").Add(100)
	letters.WithLabelValues("1", "not_found").Add(7)
	letters.WithLabelValues("1", "unroutable")
	return reg, confirmed
}

// serve starts a page whose samples the test takes.
func serve(t *testing.T, ready func() (string, error)) (*Page, *prometheus.CounterVec, string) {
	t.Helper()
	return serveWithin(t, ready, 0)
}

// serveWithin does so with a server that has limits, as the daemon's has.
func serveWithin(t *testing.T, ready func() (string, error), limit time.Duration) (*Page, *prometheus.CounterVec, string) {
	t.Helper()
	reg, confirmed := daemon()
	p, err := New(reg, ready, NewJournal(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p.Register(mux)
	s := httptest.NewUnstartedServer(mux)
	s.Config.ReadTimeout, s.Config.WriteTimeout = limit, limit
	s.Start()
	t.Cleanup(func() {
		p.announce(nil)
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return p, confirmed, s.URL
}

func isReady() (string, error) { return "ready", nil }

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

func look(t *testing.T, p *Page, at time.Time) {
	t.Helper()
	if err := p.look(at); err != nil {
		t.Fatal(err)
	}
}

func TestPageShowsThePath(t *testing.T) {
	now := time.Now()
	problem := errors.New("broker 2 takes no messages: it said <b>no</b>")
	p, confirmed, url := serve(t, func() (string, error) { return "", problem })
	look(t, p, now)
	confirmed.WithLabelValues("1", "x").Add(50)
	look(t, p, now.Add(2*time.Second))
	r, body := get(t, url+"/")
	for _, want := range []string{
		"<h1>pgamqp</h1>", "v1.2.3", "not ready", "it said &lt;b&gt;no&lt;/b&gt;", "<dd>shop</dd>", "<dd>3 MiB</dd>", "<dd>streaming</dd>", "<dd>1.5s</dd>",
		`<th scope="row">1</th>`, `<span class="good">connected</span>`, "<td>25/s</td>", `<span class="bad">disconnected</span>`,
		"&lt;script&gt;alert(1)&lt;/script&gt;", `<th scope="row">not found</th><td>7</td>`, "Confirmed: <strong>25/s</strong>, at most 25/s", "<polyline points=\"580.0,", "Last minute</h2>",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, "unroutable") {
		t.Error("it shows a reason without a dead letter")
	}
	if csp := r.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Error("it asks somebody else for something")
	}
	for path, code := range map[string]int{"/assets/page.css": 200, "/assets/page.js": 200, "/assets/icon.svg": 200, "/assets/page.html": 404, "/assets/../page.go": 404, "/other": 404} {
		if r, _ := get(t, url+path); r.StatusCode != code {
			t.Errorf("%s: %s, want %d", path, r.Status, code)
		}
	}
}

// TestNothingThatIsDrawnAnewIsReadOut: what reads a page to people would do so every two seconds.
func TestNothingThatIsDrawnAnewIsReadOut(t *testing.T) {
	p, _, url := serve(t, func() (string, error) { return "", errors.New("broker 2 takes no messages for 12s") })
	look(t, p, time.Now())
	for _, live := range []string{`role="alert"`, `role="status"`, `role="log"`, "aria-live"} {
		if strings.Contains(string(p.main), live) {
			t.Errorf("what is drawn anew has %s", live)
		}
	}
	if _, body := get(t, url); !strings.Contains(body, `<p id="news" class="unseen" role="status"></p>`) || !strings.Contains(body, `<button id="pause"`) {
		t.Errorf("the page has nothing that tells of changes, or no button to pause it:\n%s", body)
	}
}

func TestChartsGoBackFifteenMinutes(t *testing.T) {
	began := time.Now()
	p, _, _ := serve(t, isReady)
	for at := time.Duration(0); at < 20*time.Minute; at += sampleEvery {
		look(t, p, began.Add(at))
	}
	if n := len(p.samples); n < 449 || n > 452 {
		t.Errorf("%d samples are kept", n)
	}
	if !strings.Contains(string(p.main), "Last 15 minutes</h2>") {
		t.Error("the charts do not say how far back they go")
	}
}

func TestEventsBringEachChangeUntilTheDaemonStops(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	now := time.Now()
	p, confirmed, url := serveWithin(t, isReady, limit)
	look(t, p, now)
	r, err := http.Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	lines := bufio.NewScanner(r.Body)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
			if text := lines.Text(); text != "" && !strings.HasPrefix(text, "data: ") {
				t.Fatalf("not an event: %q", text)
			}
		}
		t.Fatalf("the events end without %q: %v", want, lines.Err())
	}
	until("<h1>pgamqp</h1>")
	for i := range 5 { // for longer than the server's limit
		<-time.After(limit / 4)
		confirmed.WithLabelValues("1", "x").Add(200)
		look(t, p, now.Add(time.Duration(i+1)*2*time.Second))
		until("<td>100/s</td>")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the events do not end cleanly: %v", err)
	}
}

func TestOnlySoManyPagesAreKeptUpToDate(t *testing.T) {
	p, _, url := serve(t, isReady)
	look(t, p, time.Now())
	var open []*http.Response
	for range mostListeners {
		r, err := http.Get(url + "/events")
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", r, err)
		}
		open = append(open, r)
	}
	if r, body := get(t, url+"/events"); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "16 pages") {
		t.Errorf("%s %s", r.Status, body)
	}
	for _, r := range open {
		_ = r.Body.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) { // those that went have to be noticed
		p.mu.Lock()
		n := p.listeners
		p.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d pages are left", n)
		}
	}
}
