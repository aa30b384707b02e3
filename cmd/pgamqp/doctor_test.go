package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What to do about a login that is refused depends on why.
func TestDoctorNamesACommandForEachRefusedLogin(t *testing.T) {
	const url = "postgres://app@db.example.com/shop"
	for _, c := range []struct{ code, message, want string }{
		{"28P01", `password authentication failed for user "app"`, `alter role "app" password '...';`},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "app", database "shop", no encryption`, `host "shop" "app" ADDRESS scram-sha-256`},
		{"28000", `role "app" does not exist`, `create role "app" login replication;`},
		{"28000", `role "app" is not permitted to log in`, `alter role "app" login;`},
		{"3D000", `database "shop" does not exist`, `create database "shop";`},
		{"42501", `permission denied for table broker`, `grant pgamqp_daemon to "app";`},
		{"53300", `sorry, too many clients already`, `max_connections`},
		{"XX000", `something else`, `the log of PostgreSQL`},
	} {
		err := fmt.Errorf("connect to PostgreSQL: %w", &pgconn.PgError{Severity: "FATAL", Code: c.code, Message: c.message})
		if fix := fixOfDatabase(url, err); !strings.Contains(fix, c.want) {
			t.Errorf("%s %s: %s", c.code, c.message, fix)
		}
	}
	if fix := fixOfDatabase(url, errors.New("connection refused")); !strings.Contains(fix, "--database-url") {
		t.Errorf("without an answer: %s", fix)
	}
}
