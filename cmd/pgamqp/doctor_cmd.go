package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/secrets"
	"github.com/pgamqp/pgamqp/internal/status"
)

const doctorHelp = `Look for everything that keeps messages from getting through, or will one day,
and say how to put it right: settings and privileges in PostgreSQL, installation,
publication, slot, each host of each broker (address, login, virtual host,
exchanges of routes), the daemon.

It changes nothing, and works before anything is installed. The exit code is 3 if
there is an error; warnings alone leave it at 0.`

const doctorExample = `  pgamqp doctor --database-url postgres://postgres@localhost/shop
  pgamqp doctor --json | jq '.[] | select(.level != "ok")'`

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Check every precondition and say how to fix what is wrong",
		Long:    doctorHelp,
		Example: doctorExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			d := examine(cmd.Context(), settings.Config)
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), d.Findings)
			} else {
				err = printFindings(cmd.OutOrStdout(), colorsFor(cmd.OutOrStdout()), d.Findings)
			}
			bad := 0
			for _, f := range d.Findings {
				if f.Level == catalog.LevelError {
					bad++
				}
			}
			if err == nil && bad > 0 {
				err = exitWith(exitPrecondition, fmt.Errorf("doctor: %s", counted(int64(bad), "error")))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: a list of findings")
	addSettings(cmd, "database_url", "slot", "publication", "listen", "daemon_url", "secrets_dir")
	return cmd
}

// examine looks at the database, the brokers and the daemon. What it cannot look at is a finding, too.
func examine(ctx context.Context, cfg config.Config) *catalog.Diagnosis {
	d := &catalog.Diagnosis{}
	var brokers []catalog.Broker
	exchanges := make(map[int32][]string)
	err := withDatabase(ctx, cfg.DatabaseURL, func(conn *pgx.Conn) error {
		if err := catalog.Diagnose(ctx, conn, catalog.PreflightOptions{Slot: cfg.Slot, Publication: cfg.Publication}, d); err != nil {
			return err
		}
		if slices.ContainsFunc(d.Findings, func(f catalog.Finding) bool { return f.Area == "installation" && f.Level == catalog.LevelError }) {
			return nil // there is no table of brokers, or we may not read it
		}
		var err error
		if brokers, err = catalog.Brokers(ctx, conn); err != nil {
			return err
		}
		if len(brokers) == 0 {
			d.Add(catalog.LevelWarning, "brokers", "amqp.broker has no rows: every message becomes a dead letter", "insert into amqp.broker (host) values ('localhost');")
		}
		versions, err := catalog.RouteVersions(ctx, conn)
		if err != nil {
			return err
		}
		if len(versions) > 0 {
			for _, r := range versions[len(versions)-1].Routes {
				if !slices.Contains(exchanges[r.BrokerID], r.Exchange) {
					exchanges[r.BrokerID] = append(exchanges[r.BrokerID], r.Exchange)
				}
			}
		}
		letters, err := catalog.CountDeadLetters(ctx, conn)
		if err == nil && letters > 0 {
			d.Add(catalog.LevelWarning, "dead letters", counted(letters, "message")+" could not be delivered",
				`"pgamqp dead-letters list" says why; then "pgamqp dead-letters redeliver --all"`)
		}
		return err
	})
	if err != nil {
		d.Add(catalog.LevelError, "server", err.Error(), fixOfDatabase(cfg.DatabaseURL, err))
	}
	resolved := brokerSecrets{store: secrets.New(cfg.SecretsDir), log: slog.New(slog.DiscardHandler)} // nothing is stale the first time
	for _, b := range resolved.brokers(brokers) {
		for _, h := range b.Hosts {
			examineHost(ctx, d, b.ID, h, exchanges[b.ID])
		}
	}
	examineDaemon(ctx, d, cfg.DaemonAddress())
	return d
}

// fixOfDatabase says what to do if PostgreSQL does not let us in, or does not let us look.
func fixOfDatabase(url config.ConnString, err error) string {
	c, parseErr := pgx.ParseConfig(string(url))
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if parseErr != nil || !ok {
		return "see --database-url, and whether the server runs and listens there"
	}
	role, database := pgx.Identifier{c.User}.Sanitize(), pgx.Identifier{c.Database}.Sanitize()
	switch {
	case refused.Code == "28P01": // which a role that does not exist gets, too
		return fmt.Sprintf("give the right password in --database-url, PGPASSWORD or a password file; or: alter role %s password '...';", role)
	case refused.Code == "28000" && strings.Contains(refused.Message, "pg_hba.conf"):
		return fmt.Sprintf("pg_hba.conf: a line such as: host %s %s ADDRESS scram-sha-256; then select pg_reload_conf();", database, role)
	case refused.Code == "28000": // no such role, or it may not log in
		return fmt.Sprintf("create role %[1]s login replication; grant pgamqp_daemon to %[1]s; or, if it is there: alter role %[1]s login;", role)
	case refused.Code == "3D000":
		return fmt.Sprintf("name another database in --database-url; or: create database %s;", database)
	case refused.Code == "53300":
		return "end sessions that nobody needs, or raise max_connections and restart PostgreSQL"
	case refused.Code == "42501":
		return fmt.Sprintf("grant pgamqp_daemon to %s;", role)
	}
	return "see the message, and the log of PostgreSQL"
}

func examineDaemon(ctx context.Context, d *catalog.Diagnosis, address string) {
	const area = "daemon"
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	daemon, err := status.Read(limited, address)
	switch {
	case err != nil:
		d.Add(catalog.LevelWarning, area, err.Error(), `start it with "pgamqp run", or give the address of its HTTP server with --listen`)
	case daemon.State != "streaming" && daemon.State != "standby":
		d.Add(catalog.LevelError, area, fmt.Sprintf("the daemon at %s is %s", address, daemon.State), "see its log")
	case daemon.Version != currentBuild().Version:
		d.Add(catalog.LevelWarning, area, fmt.Sprintf("the daemon at %s has version %s, this program %s", address, daemon.Version, currentBuild().Version), "restart the daemon after an upgrade")
	default:
		d.Add(catalog.LevelOK, area, fmt.Sprintf("the daemon at %s is %s", address, daemon.State), "")
	}
}

// printFindings prints a line for each, and how to put it right below it.
func printFindings(out io.Writer, c colors, all []catalog.Finding) error {
	var b strings.Builder
	for _, f := range all {
		mark := map[catalog.Level]string{catalog.LevelOK: "ok     ", catalog.LevelWarning: "warning", catalog.LevelError: "ERROR  "}[f.Level]
		with := map[catalog.Level]color{catalog.LevelOK: green, catalog.LevelWarning: yellow, catalog.LevelError: red}[f.Level]
		fmt.Fprintf(&b, "%s  %s: %s\n", c.paint(with, mark), f.Area, printable(strings.ReplaceAll(f.What, "\n", " ")))
		if f.Fix != "" {
			fmt.Fprintf(&b, "         fix: %s\n", printable(f.Fix))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
