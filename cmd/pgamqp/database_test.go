package main

import (
	"log/slog"
	"testing"

	"github.com/pgamqp/pgamqp/internal/config"
)

// Connections of the daemon find names in pg_catalog alone, those that stream as well.
func TestConnectionsOfTheDaemonHaveTheirOwnSearchPath(t *testing.T) {
	t.Parallel()
	cfg := config.Config{DatabaseURL: "postgres://u@localhost/d?search_path=public"}
	p := &postgres{url: string(cfg.DatabaseURL), streamingFrom: func() string { return "" }, log: slog.New(slog.DiscardHandler)}
	pool, err := newPool(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	d := &daemon{pool: pool, postgres: p, cfg: cfg}
	for name, params := range map[string]map[string]string{
		"pool": pool.Config().ConnConfig.RuntimeParams, "stream": d.sessionConfig().Postgres().RuntimeParams,
	} {
		if path := params["search_path"]; path != "pg_catalog, pg_temp" {
			t.Errorf("%s: search_path is %q", name, path)
		}
	}
}
