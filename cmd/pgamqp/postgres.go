package main

import (
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/replication"
)

// postgres says how to connect to the database. Files that database_url names, or the environment, are read anew for each
// connection, so that a password and certificates can be replaced: the driver reads them when it reads the URL. That takes
// some fractions of a millisecond, and a login takes more.
type postgres struct {
	url           string
	streamingFrom func() string
	log           *slog.Logger

	mu       sync.Mutex      // guards all below
	last     *pgx.ConnConfig // as it could be read last
	failures backoff.Repeats
}

func (p *postgres) read() (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(p.url) // knows settings of the pool that a URL may have, too
	if err != nil {
		return nil, err
	}
	settle(c.ConnConfig)
	c.ConnConfig.ConnectTimeout = min(c.ConnConfig.ConnectTimeout, replication.ConnectLimit)
	follow(&c.ConnConfig.Config, p.streamingFrom)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = c.ConnConfig
	return c, nil
}

// config is for the next connection, and the caller's own. What cannot be read, as in the moment in which a certificate
// and its key are replaced, is what it was.
func (p *postgres) config() *pgx.ConnConfig {
	_, err := p.read()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.failures.Worth(err.Error(), time.Now()) {
		p.log.Warn("cannot read a file that database_url names; what it was before is used", slog.Any("error", err))
	}
	return p.last.Copy()
}
