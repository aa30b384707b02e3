package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
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
			return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error {
				w := watcher{conn: conn, slot: settings.Slot, daemon: settings.DaemonAddress(), interval: interval}
				if asJSON {
					r, err := w.look(cmd.Context())
					if err != nil {
						return err
					}
					return printJSON(cmd.OutOrStdout(), r)
				}
				return w.show(cmd.Context(), cmd.OutOrStdout(), watch)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&watch, "watch", false, "show it again and again, until it is interrupted")
	f.DurationVar(&interval, "interval", time.Second, "`time` over which rates are measured, and between two looks")
	f.BoolVar(&asJSON, "json", false, "print JSON instead of tables")
	cmd.MarkFlagsMutuallyExclusive("watch", "json")
	addSettings(cmd, "database_url", "slot", "listen", "daemon_url")
	return cmd
}

// watcher looks at database and daemon.
type watcher struct {
	conn     *pgx.Conn
	slot     string
	daemon   string // the address of its HTTP server
	interval time.Duration
	before   status.Daemon // as it was at the last look; At is zero if there was none
}

// show prints what is seen, once or until ctx ends, which is no error then.
func (w *watcher) show(ctx context.Context, out io.Writer, again bool) error {
	clear := again && isTerminal(out)
	for {
		r, err := w.look(ctx)
		if again && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if clear {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		if err := r.print(out, colorsFor(out)); err != nil || !again {
			return err
		}
		fmt.Fprintln(out)
	}
}

// look waits for the interval, so that there are rates, and then asks both.
func (w *watcher) look(ctx context.Context) (*statusReport, error) {
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
	o, err := catalog.ReadOverview(ctx, w.conn, w.slot)
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
