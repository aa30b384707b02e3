package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestP47SeveralHostsMeanThePrimary(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u@a,b/d?sslmode=prefer":                               true,
		"host=a,b port=5432,5433":                                         true,
		"host=a,a port=5432,5433":                                         true,
		"postgres://u@a/d?sslmode=prefer":                                 false, // its fallback is the same host without TLS
		"postgres://u@a/d?target_session_attrs=read-write":                true,
		"postgres://u@a,b/d?target_session_attrs=read-write":              true,
		"postgres://u@a:1,b:2/d?sslmode=disable&target_session_attrs=any": true,
	} {
		c, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		preferPrimary(&c.Config)
		if got := c.ValidateConnect != nil; got != want {
			t.Errorf("%s: looks for the primary: %v, want %v", url, got, want)
		}
	}
}

func TestP47ConnectionsFollowTheStream(t *testing.T) {
	for _, c := range []struct {
		url, streaming string
		want           string // addresses that are dialed
	}{
		{"postgres://127.0.0.1:1,127.0.0.1:2/d?sslmode=disable", "", "127.0.0.1:1 127.0.0.1:2"},
		{"postgres://127.0.0.1:1,127.0.0.1:2/d?sslmode=disable", "127.0.0.1:2", "127.0.0.1:2"},
		{"postgres://127.0.0.1:1/d?sslmode=disable", "127.0.0.9:1", "127.0.0.1:1"}, // its address may change
	} {
		config, err := pgx.ParseConfig(c.url)
		if err != nil {
			t.Fatal(err)
		}
		var dialed []string
		config.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = append(dialed, address)
			return nil, errors.New("nobody there")
		}
		follow(&config.Config, func() string { return c.streaming })
		if _, err := pgx.ConnectConfig(t.Context(), config); err == nil {
			t.Error("connected")
		}
		if got := strings.Join(dialed, " "); got != c.want {
			t.Errorf("%s while %q is streamed from: dialed %q, want %q", c.url, c.streaming, got, c.want)
		}
	}
}
