package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/demo"
)

const demoHelp = `Show pgamqp at work, and check it, on this machine.

Starts a private PostgreSQL and two private RabbitMQ nodes on free ports of
127.0.0.1, in temporary folders; installs pgamqp there, runs the daemon, and lets
pgbench publish with commits, rollbacks, savepoints and autonomous calls. Then it
compares what arrived with what was committed. Exit code 1 if a message is
missing, came twice or was never committed. Everything is gone at the end.

With --rows pgbench changes its own tables while a snapshot of them is sent, and
a consumer rebuilds the balances from messages; they must be those of the tables.

Needs PostgreSQL, pgbench and RabbitMQ installed; "make demo" installs them.`

func newDemoCommand() *cobra.Command {
	o := demo.Options{}
	var rows bool
	cmd := &cobra.Command{
		Use:     "demo",
		Short:   "Show pgamqp at work on private servers, and check it",
		Long:    demoHelp,
		Example: "  pgamqp demo\n  pgamqp demo --time 30s --rate 0\n  pgamqp demo --rows\n  pgamqp demo --keep",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Program, err = os.Executable(); err != nil {
				return fmt.Errorf("find the program itself: %w", err)
			}
			o.Out = cmd.OutOrStdout()
			o.Live = isTerminal(o.Out)
			run := demo.Run
			if rows {
				run = demo.RunRows
			}
			if err = run(cmd.Context(), o); errors.Is(err, cmd.Context().Err()) && err != nil {
				return errors.New("interrupted")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&rows, "rows", false, "show changes of rows: pgbench changes its tables, a consumer rebuilds the balances")
	f.DurationVar(&o.Duration, "time", 8*time.Second, "how long pgbench publishes")
	f.IntVar(&o.Rate, "rate", 1000, "pgbench transactions a second; 0 is as fast as it can")
	f.BoolVar(&o.Keep, "keep", false, "leave the servers running until Ctrl-C")
	return cmd
}
