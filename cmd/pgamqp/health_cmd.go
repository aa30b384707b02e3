package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/status"
)

const healthHelp = `Ask the daemon whose HTTP server has the address --listen how it is, for
supervisors that can only run a command, such as the health check of a container.

It prints what /healthz says, or /readyz with --ready, and ends with 0 if all is
well, else with 1. Like /healthz it fails for what a restart can cure; --ready
fails while no messages flow, for which a restart is the wrong answer.`

const healthExample = `  pgamqp health
  pgamqp health --ready --listen 127.0.0.1:9465`

// healthAnswer is what health prints as JSON.
type healthAnswer struct {
	Good bool   `json:"good"`
	Says string `json:"says"`
}

func newHealthCommand() *cobra.Command {
	var ready, asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "health",
		Short:   "Ask the daemon whether it works, for health checks",
		Long:    healthHelp,
		Example: healthExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return exitWith(exitUsage, fmt.Errorf("--timeout %s: give more than 0s", timeout))
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			said, err := status.Health(ctx, settings.DaemonAddress(), path)
			if asJSON {
				answer := healthAnswer{Good: err == nil, Says: said}
				if err != nil {
					answer.Says = err.Error()
				}
				return errors.Join(err, printJSON(cmd.OutOrStdout(), answer))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON: whether all is well, and what the daemon says")
	f.BoolVar(&ready, "ready", false, "ask whether messages flow, or the daemon is a standby")
	f.DurationVar(&timeout, "timeout", 5*time.Second, "longest `time` to wait for the answer")
	addSettings(cmd, "listen", "daemon_url")
	return cmd
}
