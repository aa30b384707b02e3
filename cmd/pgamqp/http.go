package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/page"
	"github.com/pgamqp/pgamqp/metrics"
)

// Deadlines of the HTTP server. Its clients are Prometheus and health checks: whoever is slower is stuck.
const (
	httpReadTimeout     = 5 * time.Second
	httpWriteTimeout    = 30 * time.Second // a scrape of many series over a slow line
	httpIdleTimeout     = 2 * time.Minute  // longer than the usual scrape interval
	httpShutdownTimeout = 2 * time.Second
	httpMaxHeaderBytes  = 16 << 10
)

// newRegistry returns a registry with what every process has: build, Go runtime, operating system.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	b := currentBuild()
	metrics.NewBuildInfo(reg, b.Version, b.Commit)
	return reg
}

// listenHTTP opens the address of the HTTP server. The daemon calls it before anything else, so that an address that
// is taken or not ours ends the start with a clear error, and not a daemon that nobody can watch.
func listenHTTP(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another process uses the port: choose a different one with --listen, port 0 for any", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: not permitted for this user: choose a port above 1023 with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine has no such address: change --listen", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}

// httpServer answers Prometheus, health checks and people.
type httpServer struct {
	server    *http.Server
	webConfig string // the file that turns on TLS and logins, or empty
	log       *slog.Logger
}

// checkWebConfig reads the file that turns on TLS and logins, so that a mistake in it ends the start.
func checkWebConfig(file string) error {
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("web_config %s: %w", file, err)
	}
	return nil
}

// newHTTPServer makes the server. live and ready are called from any goroutine, must not block, and return what
// holds in a word, or what is wrong, in words for an operator; live only for what a restart of the process can cure.
func newHTTPServer(reg *prometheus.Registry, status *page.Page, live func() error, ready func() (string, error), log *slog.Logger) *httpServer {
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            errorLog,
		Registry:            reg,
		MaxRequestsInFlight: 4,
		EnableOpenMetrics:   true,
	}))
	mux.Handle("GET /healthz", healthHandler("alive", func() (string, error) { return "alive", live() }))
	mux.Handle("GET /readyz", healthHandler("ready", ready))
	status.Register(mux)
	return &httpServer{
		log: log,
		server: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: httpReadTimeout,
			ReadTimeout:       httpReadTimeout,
			WriteTimeout:      httpWriteTimeout,
			IdleTimeout:       httpIdleTimeout,
			MaxHeaderBytes:    httpMaxHeaderBytes,
			ErrorLog:          errorLog,
		},
	}
}

// Run serves until ctx ends, then finishes the requests in hand and closes the listener.
func (s *httpServer) Run(ctx context.Context, listener net.Listener) error {
	s.log.Info("listening", slog.String("address", listener.Addr().String()))
	served := make(chan error, 1)
	go func() {
		if s.webConfig == "" {
			s.server.Handler = hardened(s.server.Handler)
			served <- s.server.Serve(listener)
			return
		}
		served <- s.serveByWebConfig(listener)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpShutdownTimeout)
	defer cancel()
	if err := s.server.Shutdown(limited); err != nil {
		_ = s.server.Close() // a client that does not finish must not hold up the stop
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", listener.Addr(), err)
	}
	return nil
}

// noListener has nobody to serve.
type noListener struct{ net.Listener }

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }

// serveByWebConfig serves with the TLS and the logins of the file. The library puts its check of logins in front of our
// handler and serves at once; what is to see the answers of that check stands before it, so the library is given nobody to
// serve at first.
func (s *httpServer) serveByWebConfig(listener net.Listener) error {
	quiet := slog.New(slog.DiscardHandler) // what it has to say is in web_config
	if err := web.Serve(noListener{listener}, s.server, &web.FlagConfig{WebConfigFile: &s.webConfig}, quiet); !errors.Is(err, net.ErrClosed) {
		return err
	}
	s.server.Handler = hardened(tellRefused(s.server.Handler, s.log))
	if s.server.TLSConfig != nil && s.server.TLSConfig.GetConfigForClient != nil { // by the library, which reads certificates anew
		return s.server.ServeTLS(listener, "", "")
	}
	return s.server.Serve(listener)
}

// hardened sets the headers that keep browsers from doing more with an answer than to show it.
func hardened(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.Harden(w)
		h.ServeHTTP(w, r)
	})
}

// tellRefused logs that logins were refused, not who tried: people type passwords for names. A login that is not
// tried, as by a browser before it asks its user, is none.
func tellRefused(h http.Handler, log *slog.Logger) http.Handler {
	var mu sync.Mutex // guards the two below
	var refused int64
	var told backoff.Repeats
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(answer, r)
		if answer.code != http.StatusUnauthorized || r.Header.Get("Authorization") == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		refused++
		if told.Worth("", time.Now()) {
			log.Warn("refused a login to the HTTP server", slog.String("address", r.RemoteAddr), slog.Int64("refused_so_far", refused))
		}
	})
}

// statusWriter remembers the code of an answer.
type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader is for the handler.
func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets [http.ResponseController] reach what it needs.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// healthHandler answers 200 and what holds, or 503 and that the wanted state does not, and why.
func healthHandler(wanted string, check func() (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		state, err := check()
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "not %s: %s\n", wanted, strings.TrimSpace(err.Error()))
			return
		}
		_, _ = fmt.Fprintln(w, state)
	})
}
