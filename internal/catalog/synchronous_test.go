package catalog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What does not pass on replication connections says so in many ways: PgBouncer does not know the parameter, others do not
// know the command.
func TestReplicationThatIsNotLetThroughHasAFixForEachReason(t *testing.T) {
	for code, want := range map[string]string{
		"53300": "max_wal_senders", "42501": `alter role "app" replication;`, "28000": "pg_hba.conf",
		"08P01": "not pass on replication", "42601": "not pass on replication",
	} {
		err := fmt.Errorf("connect: %w", &pgconn.PgError{Code: code, Message: "unsupported startup parameter: replication"})
		if fix := fixOfReplication(err, server{role: "app", database: "shop"}); !strings.Contains(fix, want) {
			t.Errorf("%s: %s", code, fix)
		}
	}
}

func TestNamesOfSynchronousStandbysAreReadAsPostgreSQLDoes(t *testing.T) {
	for names, want := range map[string]chosen{
		"":                             never,
		"other":                        never,
		"*":                            always,
		"pgamqp":                       always,
		"PGAMQP":                       always,
		`"pgamqp"`:                     always,
		"other, pgamqp":                perhaps,
		"other,*":                      perhaps,
		"2 (other, pgamqp)":            always,
		"FIRST 1 (other, *)":           perhaps,
		"first 2 (other, third, *)":    perhaps,
		"ANY 1 (other, third, pgamqp)": always,
		`any 1 ( "other" , "x y" )`:    never,
		`"not ""pgamqp"""`:             never,
		"pgamqp2":                      never,
	} {
		if got := synchronous(names, "pgamqp"); got != want {
			t.Errorf("%s: %d, want %d", names, got, want)
		}
	}
}
