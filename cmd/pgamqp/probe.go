package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// probeEvery is how often the daemon looks whether the server is shutting down, and how long a
// message has to wait for its confirm before it looks at all.
const probeEvery = 500 * time.Millisecond

// watchShutdown looks for the sign of a shutdown that a stream can miss: a login that is refused.
// The server waits, without limit, until all it has sent is confirmed. A stream that receives
// sees that in the server's keepalives; one whose buffers are full does not receive. Only the main
// stream counts: when it has all confirmed, the server ends it, and with it end the streams of
// detached brokers, however full.
func (d *daemon) watchShutdown(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if d.session.Lag() > probeEvery {
			d.knock(ctx)
		}
	}
}

// knock logs in and out again; ask notes a refusal. Other errors are for those to tell who
// want something from the server.
func (d *daemon) knock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	_ = d.ask(ctx, func(context.Context, *pgx.Conn) error { return nil })
}
