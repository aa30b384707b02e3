package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/replication"
)

// connectTimeout applies unless the database URL has its own connect_timeout.
const connectTimeout = 10 * time.Second

// withDatabase connects, calls f and disconnects, and gives what goes wrong its exit code.
func withDatabase(ctx context.Context, url config.ConnString, f func(*pgx.Conn) error) error {
	c, err := pgx.ParseConfig(string(url))
	if err != nil {
		return exitWith(exitUsage, checkDatabaseURL(url))
	}
	settle(c)
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return databaseError(fmt.Errorf("connect to PostgreSQL: %w", replication.ExplainTLS(err)))
	}
	defer func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(limited) // says goodbye; the work is done or has failed already
	}()
	return databaseError(f(conn))
}

// settle completes what a database URL says.
func settle(c *pgx.ConnConfig) {
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, connectTimeout)
	c.RuntimeParams["application_name"] = cmp.Or(c.RuntimeParams["application_name"], "pgamqp")
	catalog.Settle(&c.Config)
	preferPrimary(&c.Config)
}

// withSettings is withDatabase for a command that wants nothing of its settings but the database.
func withSettings(cmd *cobra.Command, f func(context.Context, *pgx.Conn) error) error {
	settings, err := loadSettings(cmd)
	if err != nil {
		return err
	}
	return withDatabase(cmd.Context(), settings.DatabaseURL, func(conn *pgx.Conn) error { return f(cmd.Context(), conn) })
}

// databaseError tells what somebody must set up from what may work the next time.
func databaseError(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "42501", // a privilege is missing
			"28000", "28P01", // the login is refused
			"3D000": // there is no such database
			return exitWith(exitPrecondition, err)
		}
	}
	if _, ok := errors.AsType[*catalog.ProblemsError](err); ok {
		return exitWith(exitPrecondition, err)
	}
	return err
}
