// Package page is the status page of a daemon: what it says of itself, for people, drawn by the server. Without scripts
// it is a page that loads itself again; with them it is kept up to date by server-sent events. It changes nothing, and
// asks nobody but the daemon.
package page

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/status"
)

//go:embed assets
var assets embed.FS

const (
	// sampleEvery is the time between two looks, and two events.
	sampleEvery = 2 * time.Second
	// keep is how far back the charts go.
	keep = 15 * time.Minute
	// mostListeners bounds the pages that are kept up to date at the same time.
	mostListeners = 16
	// writeLimit is how long a page may take to read an event.
	writeLimit = 10 * time.Second
)

// Page serves the status page.
type Page struct {
	metrics  prometheus.Gatherer
	ready    func() (string, error)
	journal  *Journal
	template *template.Template

	mu        sync.Mutex // guards all below
	last      status.Daemon
	samples   []sample // the oldest first, no more than fit into keep
	rates     map[int32]status.Rate
	main      []byte // as it is drawn now
	changed   chan struct{}
	listeners int
}

// sample is a moment of the charts: figures alone, as there are hundreds.
type sample struct {
	at       time.Time
	received float64 // messages a second
	confirms float64
	lag      float64 // seconds
	p99      float64 // seconds, of the slowest broker; 0 if nothing was confirmed
}

// New returns a page about the daemon of this process. ready is as for /readyz: in a word what holds, or what is wrong;
// all that the daemon logs goes through the journal.
func New(metrics prometheus.Gatherer, ready func() (string, error), journal *Journal) (*Page, error) {
	p := &Page{metrics: metrics, ready: ready, journal: journal, changed: make(chan struct{})}
	var err error
	p.template, err = template.New("page.html").Funcs(template.FuncMap{
		"count": func(n float64) string { return fmt.Sprintf("%.0f", n) }, "size": status.Size, "rate": rateOf, "minutes": func(d time.Duration) string { return fmt.Sprint(int(d.Minutes())) }, "seconds": secondsOf, "since": sinceOf, "plain": func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	}).ParseFS(assets, "assets/page.html")
	if err != nil {
		return nil, fmt.Errorf("read the template of the status page: %w", err)
	}
	return p, nil
}

// Run looks at the daemon until ctx ends, and then ends the events of all pages.
func (p *Page) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	defer p.announce(nil)
	for {
		if err := p.look(time.Now()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look takes a sample and draws the page anew.
func (p *Page) look(now time.Time) error {
	daemon, err := status.Gather(p.metrics, now)
	if err != nil {
		return fmt.Errorf("gather metrics for the status page: %w", err)
	}
	p.mu.Lock()
	s := sample{at: now, lag: daemon.LagSeconds}
	if before := &p.last; !before.At.IsZero() {
		p.rates = status.Rates(*before, daemon)
		s.received = max(0, daemon.Received-before.Received) / max(now.Sub(before.At), time.Millisecond).Seconds()
		for _, r := range p.rates {
			s.confirms, s.p99 = s.confirms+r.Confirmed, max(s.p99, r.ConfirmP99)
		}
	}
	p.last, p.samples = daemon, append(p.samples, s)
	for now.Sub(p.samples[0].at) > keep {
		p.samples = p.samples[1:]
	}
	v := p.view()
	p.mu.Unlock()

	state, problem := p.ready()
	v.State, v.Problem = state, ""
	if problem != nil {
		v.State, v.Problem = "not ready", problem.Error()
	}
	var out bytes.Buffer
	if err := p.template.ExecuteTemplate(&out, "main", v); err != nil {
		return fmt.Errorf("draw the status page: %w", err)
	}
	p.announce(out.Bytes())
	return nil
}

// announce gives all pages what they show from now on; nil is the end.
func (p *Page) announce(main []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.main = main
	close(p.changed)
	p.changed = make(chan struct{})
}

// now returns what is shown, and what is closed when there is something else.
func (p *Page) now() (main []byte, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.main, p.changed
}

// Register adds the page to a server, at /.
func (p *Page) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", p.serve)
	mux.HandleFunc("GET /events", p.events)
	mux.Handle("GET /assets/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Harden(w)
		if strings.HasSuffix(r.URL.Path, ".html") {
			http.NotFound(w, r) // the template
			return
		}
		http.FileServerFS(assets).ServeHTTP(w, r)
	}))
}

// Harden keeps what others write from doing anything in a browser, and others from showing the page as theirs.
func Harden(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

func (p *Page) serve(w http.ResponseWriter, _ *http.Request) {
	main, _ := p.now()
	var out bytes.Buffer
	if err := p.template.Execute(&out, template.HTML(main)); err != nil { //nolint:gosec // drawn by the same template, which has escaped all
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	Harden(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Bytes())
}

// events sends the page anew each time that it has changed, until the reader or the daemon goes.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if !p.listen(1) {
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d pages are kept up to date already; this one is by loading it again", mostListeners), http.StatusServiceUnavailable)
		return
	}
	defer p.listen(-1)
	Harden(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	for {
		main, changed := p.now()
		if main == nil {
			return // the daemon stops
		}
		// The server has a limit for the whole answer, which this one has no end for.
		if err := control.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", bytes.ReplaceAll(main, []byte("\n"), []byte("\ndata: "))); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// listen counts a page that is kept up to date; false if there are too many.
func (p *Page) listen(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > 0 && p.listeners >= mostListeners {
		return false
	}
	p.listeners += n
	return true
}
