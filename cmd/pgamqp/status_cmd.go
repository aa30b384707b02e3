package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/status"
)

const statusHelp = `Show the path of the messages: the replication slot and how far it is behind, the
WAL that the server keeps for it, each broker and its rate, dead letters,
snapshots.

What the database knows is shown whether a daemon runs or not. The rest comes
from the daemon whose HTTP server has the address --listen, as in its own
configuration: rates are measured over --interval.`

const statusExample = `  pgamqp status
  pgamqp status --watch
  pgamqp status --json | jq '.slots[0].lag_bytes'`

func newStatusCommand() *cobra.Command {
	var watch, asJSON bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show slot, lag, brokers, rates and dead letters",
		Long:    statusHelp,
		Example: statusExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return exitWith(exitUsage, fmt.Errorf("--interval %s: give at least 100ms", interval))
			}
			w := watcher{url: settings.DatabaseURL, slot: settings.Slot, daemon: settings.DaemonAddress(), interval: interval, out: cmd.OutOrStdout()}
			switch {
			case watch:
				return w.watch(cmd.Context())
			case asJSON:
				return w.with(cmd.Context(), func(r *statusReport) error { return printJSON(w.out, r) })
			}
			return w.with(cmd.Context(), func(r *statusReport) error { return r.print(w.out, colorsFor(w.out)) })
		},
	}
	f := cmd.Flags()
	f.BoolVar(&watch, "watch", false, "show it again and again until interrupted, restarts of PostgreSQL included")
	f.DurationVar(&interval, "interval", time.Second, "`time` over which rates are measured, and between two looks")
	f.BoolVar(&asJSON, "json", false, "print JSON instead of tables")
	cmd.MarkFlagsMutuallyExclusive("watch", "json")
	addSettings(cmd, "database_url", "slot", "listen", "daemon_url")
	return cmd
}

// watcher looks at database and daemon.
type watcher struct {
	url      config.ConnString
	slot     string
	daemon   string // the address of its HTTP server
	interval time.Duration
	out      io.Writer
	before   status.Daemon // as it was at the last look; At is zero if there was none
}

// with looks once.
func (w *watcher) with(ctx context.Context, show func(*statusReport) error) error {
	return withDatabase(ctx, w.url, func(conn *pgx.Conn) error {
		r, err := w.look(ctx, conn)
		if err != nil {
			return err
		}
		return show(r)
	})
}

// watch shows what is seen until ctx ends, which is no error. A database that has answered once is waited for when it
// does not any more: a restart is when one watches.
func (w *watcher) watch(ctx context.Context) error {
	answered := false
	var broken error // what keeps us from printing
	for {
		err := withDatabase(ctx, w.url, func(conn *pgx.Conn) error {
			for {
				r, err := w.look(ctx, conn)
				if err != nil {
					return err
				}
				answered = true
				if broken = w.show(r); broken != nil {
					return broken
				}
			}
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case broken != nil || !answered:
			return err
		}
		fmt.Fprintf(w.out, "%s  %s; trying again\n", time.Now().Format(time.TimeOnly), printable(strings.ReplaceAll(err.Error(), "\n", " ")))
		select {
		case <-time.After(w.interval):
		case <-ctx.Done():
			return nil
		}
	}
}

// show prints a report among others, with the time of day. On a terminal it takes the place of the one before.
func (w *watcher) show(r *statusReport) error {
	if isTerminal(w.out) {
		fmt.Fprint(w.out, "\x1b[H\x1b[2J")
	}
	fmt.Fprintln(w.out, time.Now().Format(time.TimeOnly))
	if err := r.print(w.out, colorsFor(w.out)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w.out)
	return err
}

// look waits for the interval, so that there are rates, and then asks both.
func (w *watcher) look(ctx context.Context, conn *pgx.Conn) (*statusReport, error) {
	const answer = 5 * time.Second
	ask := func() (status.Daemon, error) {
		limited, cancel := context.WithTimeout(ctx, answer)
		defer cancel()
		return status.Read(limited, w.daemon)
	}
	if w.before.At.IsZero() {
		w.before, _ = ask() // what is wrong is told by the second
	}
	select {
	case <-time.After(w.interval):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	o, err := catalog.ReadOverview(ctx, conn, w.slot)
	if err != nil {
		return nil, err
	}
	r := reportOf(&o)
	now, err := ask()
	if err != nil {
		r.DaemonError = err.Error()
	} else {
		r.addDaemon(&now, w.before)
	}
	w.before = now
	return r, nil
}
