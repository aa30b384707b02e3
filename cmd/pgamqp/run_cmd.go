package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/config"
)

const runHelp = `Run the daemon: read messages from the replication slot, publish them, and move
the slot behind what the brokers have confirmed.

The database must have been prepared with "pgamqp install". Several daemons may
run on one slot: one works, the others wait and take over. With several hosts in
the database URL it works with the one that is the primary, also after a failover.

SIGTERM or SIGINT stop it: it reads no more, waits for confirms of what was sent
up to --shutdown-timeout, reports its position and exits with 0. What was not
confirmed by then is published after the next start. A second signal kills it.
SIGHUP makes it read its settings again: the log level changes at once, other
settings with the next start, and it says which.

The log goes to stderr. The HTTP server answers on
  /metrics  metrics for Prometheus
  /healthz  200 while the process works, for a supervisor that restarts it
  /readyz   200 and "ready" while messages flow, or "standby" while another daemon
            has the slot; otherwise 503, and the body says what is wrong

` + exitCodeHelp

const runExample = `  pgamqp run --database-url postgres://pgamqp@db.example.com/shop
  pgamqp run --config /etc/pgamqp.yaml --log-format json
  PGHOST=db PGDATABASE=shop pgamqp run`

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Short:   "Run the daemon",
		Long:    runHelp,
		Example: runExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			level := new(slog.LevelVar)
			level.Set(settings.LogLevel)
			log := newLogger(cmd.ErrOrStderr(), settings.LogFormat, level)
			reload := newReloader(func() (config.Loaded, error) { return loadSettings(cmd) }, settings.Config, level)
			build := currentBuild()
			log.Info("starting", slog.String("version", build.Version), slog.String("commit", build.Commit), slog.Any("config", settings.Config))
			if f := cmd.Flags().Lookup("database-url"); f != nil && f.Changed && config.ConnString(f.Value.String()).HasSecret() {
				log.Warn("every user of this machine can see the password in --database-url: give it in PGPASSWORD, a password file or the configuration file")
			}
			if err := runDaemon(cmd.Context(), settings.Config, reload, log); err != nil {
				code := exitCode(err)
				log.Error("exiting", slog.Any("error", err), slog.Int("exit_code", code))
				return &exitError{code: code, err: err, logged: true}
			}
			log.Info("exiting", slog.Int("exit_code", exitOK))
			return nil
		},
	}
	addSettings(cmd)
	return cmd
}
