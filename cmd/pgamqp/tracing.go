package main

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/pgamqp/pgamqp/internal/tracing"
	"github.com/pgamqp/pgamqp/publisher"
)

// tracesPath is where a collector takes spans, unless its address says otherwise.
const tracesPath = "/v1/traces"

// lastSpans is how long the end of the daemon waits for a collector.
const lastSpans = 5 * time.Second

// startTracing returns what is to be told of each message; nil if no collector is set.
func (d *daemon) startTracing(ctx context.Context) (func(*publisher.Settled), error) {
	if d.cfg.OTLPEndpoint == "" {
		return nil, nil
	}
	u, err := url.Parse(d.cfg.OTLPEndpoint)
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = tracesPath
	}
	if d.tracer, err = tracing.New(ctx, u.String(), version, d.log); err != nil {
		return nil, err
	}
	return d.tracer.Settled, nil
}

// close gives back what the daemon holds beside its goroutines.
func (d *daemon) close() {
	d.pool.Close()
	if d.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
	defer cancel()
	if err := d.tracer.Close(ctx); err != nil {
		d.log.Warn("spans are lost", slog.Any("error", err))
	}
}
