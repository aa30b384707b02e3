package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Settle gives connections the settings that this package relies on.
//
// A server speaks the encoding of its database unless it is told otherwise, and strings here are UTF-8. And whoever may
// create objects in schema public could have made operators that fit better than PostgreSQL's own: with the usual
// search_path they would run with our rights.
func Settle(config *pgconn.Config) {
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["search_path"] = "pg_catalog, pg_temp"
	config.RuntimeParams["standard_conforming_strings"] = "on"
}

// Config reads a connection string, or with "" the environment variables of libpq, for
// connections to be used with this package.
func Config(databaseURL string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err) // pgx leaves the password out
	}
	Settle(&config.Config)
	return config, nil
}

// Connect opens a connection as [Config] describes it.
func Connect(ctx context.Context, databaseURL string) (*pgx.Conn, error) {
	config, err := Config(databaseURL)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}
