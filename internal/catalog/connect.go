package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Config reads a connection string, or with "" the environment variables of libpq, for
// connections to be used with this package.
//
// A server speaks the encoding of its database unless it is told otherwise, and strings
// here are UTF-8.
func Config(databaseURL string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err) // pgx leaves the password out
	}
	config.RuntimeParams["client_encoding"] = "UTF8"
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
