package main

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// With a list of hosts every connection looks for the primary by itself. Two things
// make them agree.

// preferPrimary makes connections pass over standbys if several hosts are given and
// target_session_attrs does not say otherwise.
func preferPrimary(c *pgconn.Config) {
	if c.ValidateConnect == nil && severalHosts(c) {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
}

// severalHosts tells whether the fallbacks are more than the same host with other
// settings of TLS.
func severalHosts(c *pgconn.Config) bool {
	return slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.Host != c.Host || f.Port != c.Port
	})
}

// follow makes connections go only to the server that is streamed from, while there is
// one: after a failover that left the old primary alive, two servers would do, and a
// dead letter must not go to one and the position to the other. It also spares the wait
// for hosts that are down. streaming returns the address in use, empty if there is none.
func follow(c *pgconn.Config, streaming func() string) {
	if !severalHosts(c) {
		return // the address behind one name may change while the stream goes on
	}
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if only := streaming(); only != "" && address != only {
			return nil, fmt.Errorf("passed over, the stream comes from %s", only)
		}
		return dial(ctx, network, address)
	}
}

// stillFollows tells whether a connection that was opened before still goes to the
// server that is streamed from.
func stillFollows(conn *pgx.Conn, streaming func() string) bool {
	only := streaming()
	config := conn.Config()
	if only == "" || !severalHosts(&config.Config) || conn.PgConn().Conn().RemoteAddr().Network() == "unix" {
		return true
	}
	return conn.PgConn().Conn().RemoteAddr().String() == only
}
