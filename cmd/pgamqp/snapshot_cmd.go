package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

const snapshotHelp = `Send the rows that tables have already, as messages of operation read between
those of their changes. A consumer that applies all messages in their order ends
with what the tables hold, whatever changes meanwhile.

The tables must have routes that take insertions (amqp.route_table). The daemon
does the work, one table after the other; it goes on after a crash where it was.
Its role needs SELECT on the tables, and BYPASSRLS if they have row-level
security.

Without a flag this lists all snapshots, as does amqp.snapshot in SQL.`

const snapshotExample = `  pgamqp snapshot --table public.orders --wait
  pgamqp snapshot --table 'public.*'
  pgamqp snapshot --pause 3
  pgamqp snapshot --json`

func newSnapshotCommand() *cobra.Command {
	var tables []string
	var pause, resume, cancel []int
	var wait, asJSON bool
	cmd := &cobra.Command{
		Use:     "snapshot",
		Short:   "Send the rows that tables have already",
		Long:    snapshotHelp,
		Example: snapshotExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSettings(cmd, func(ctx context.Context, conn *pgx.Conn) error {
				ids, err := changeSnapshots(ctx, conn, tables, map[string][]int{"pause": pause, "resume": resume, "cancel": cancel})
				if err != nil {
					return err
				}
				if wait {
					return awaitSnapshots(ctx, conn, cmd.OutOrStdout(), ids)
				}
				all, err := catalog.Snapshots(ctx, conn, ids...)
				if err != nil {
					return err
				}
				return showSnapshots(cmd.OutOrStdout(), colorsFor(cmd.OutOrStdout()), all, asJSON)
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&tables, "table", nil, "take snapshots of a `list` of tables, each as schema.table; * stands for any characters")
	f.IntSliceVar(&pause, "pause", nil, "stop the snapshots with these `ids` for now")
	f.IntSliceVar(&resume, "resume", nil, "go on with the snapshots with these `ids`, which are paused or have failed")
	f.IntSliceVar(&cancel, "cancel", nil, "end the snapshots with these `ids`")
	f.BoolVar(&wait, "wait", false, "show how far the snapshots are until all are over; exit code 1 if one fails")
	f.BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	f.SortFlags = false
	cmd.MarkFlagsMutuallyExclusive("wait", "json")
	addSettings(cmd, "database_url")
	return cmd
}

// changeSnapshots does what was asked for, and returns the ids that it was about; none means all.
func changeSnapshots(ctx context.Context, conn *pgx.Conn, tables []string, actions map[string][]int) (ids []int32, err error) {
	for _, action := range []string{"pause", "resume", "cancel"} {
		for _, id := range actions[action] {
			done, err := catalog.ControlSnapshot(ctx, conn, action, int32(id))
			if err != nil {
				return nil, fmt.Errorf("%s snapshot %d: %w", action, id, err)
			}
			if !done {
				return nil, fmt.Errorf("%s snapshot %d: there is none in a state that allows it; see pgamqp snapshot", action, id)
			}
			ids = append(ids, int32(id))
		}
	}
	for _, table := range tables {
		asked, err := catalog.AskForSnapshot(ctx, conn, table)
		if err != nil {
			return nil, fmt.Errorf("ask for a snapshot of %s: %w", table, err)
		}
		ids = append(ids, asked...)
	}
	return ids, nil
}

// showSnapshots prints a table, or JSON.
func showSnapshots(out io.Writer, c colors, all []catalog.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, append([]catalog.Snapshot{}, all...)) // none is a list, too
	}
	if len(all) == 0 {
		fmt.Fprintln(out, "There is no snapshot. Ask for one with: pgamqp snapshot --table SCHEMA.TABLE")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTABLE\t"+c.paint(plain, "STATE")+"\tROWS\tABOUT\tERROR")
	for _, s := range all {
		fmt.Fprintf(w, "%d\t%s.%s\t%s\t%d\t%s\t%s\n", s.ID, s.Schema, s.Table, c.paint(stateColor(s.State), s.State), s.RowsRead, share(s), s.Error)
	}
	return w.Flush()
}

// share is how much of a table was read, by the planner's estimate of its size.
func share(s catalog.Snapshot) string {
	switch {
	case s.State == "done":
		return "100 %"
	case s.RowsExpected == 0:
		return "?"
	}
	return fmt.Sprintf("%d %%", min(99, 100*s.RowsRead/s.RowsExpected))
}

// awaitSnapshots waits until snapshots are over, all if there are no ids, and tells of each that is. On a
// terminal it shows how far they are.
func awaitSnapshots(ctx context.Context, conn *pgx.Conn, out io.Writer, ids []int32) error {
	live := isTerminal(out)
	told := map[int32]bool{}
	began, first := time.Now(), int64(-1)
	for {
		all, err := catalog.Snapshots(ctx, conn, ids...)
		if err != nil {
			return err
		}
		open, failed := 0, 0
		read, expected := progress(all)
		for _, s := range all {
			over := s.State == "done" || s.State == "failed" || s.State == "canceled"
			switch {
			case !over:
				open++
				continue
			case s.State != "done":
				failed++
			}
			if !told[s.ID] {
				told[s.ID] = true
				fmt.Fprintf(out, "%s%s.%s: %s, %d rows %s\n", clearLine(live), s.Schema, s.Table, s.State, s.RowsRead, s.Error)
			}
		}
		if open == 0 {
			if failed > 0 {
				return fmt.Errorf("%d of %d snapshots did not come to their end", failed, len(all))
			}
			return nil
		}
		if first < 0 {
			first = read
		}
		if live {
			fmt.Fprint(out, clearLine(true), bar(read, expected), left(read-first, expected-read, time.Since(began)))
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func clearLine(live bool) string {
	if live {
		return "\r\x1b[K"
	}
	return ""
}

// progress is how many rows were read, and of how many; 0 if that is not known of one that is not done.
func progress(all []catalog.Snapshot) (read, expected int64) {
	known := true
	for _, s := range all {
		known = known && (s.RowsExpected > 0 || s.State == "done")
		read += s.RowsRead
		if s.State == "done" {
			expected += s.RowsRead
		} else {
			expected += max(s.RowsRead, s.RowsExpected)
		}
	}
	if !known {
		expected = 0
	}
	return read, expected
}

// bar draws how many rows of those that are expected were read; 0 if nobody knows how many there are.
func bar(read, expected int64) string {
	const cells = 24
	if expected == 0 {
		return fmt.Sprintf("%s %d of ? rows", strings.Repeat("░", cells), read)
	}
	done := int(cells * read / expected)
	return fmt.Sprintf("%s%s %d of about %d rows", strings.Repeat("█", done), strings.Repeat("░", cells-done), read, expected)
}

// left tells how long the rest takes if it is as fast as what was seen.
func left(read, rest int64, spent time.Duration) string {
	if read <= 0 || rest <= 0 {
		return ""
	}
	return fmt.Sprintf(", %s left", time.Duration(float64(spent)*float64(rest)/float64(read)).Round(time.Second))
}
