package main

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// startPostgres returns the URL of an empty database on a server of the test's own.
func startPostgres(t *testing.T, settings map[string]string) string {
	t.Helper()
	server, err := testserver.StartPostgres(testserver.PostgresOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.CreateDatabase(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	return server.URL("shop")
}

func execute(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// firstWords returns the kind of each line of a report and what the line is about.
func firstWords(report string) []string {
	var words []string
	for line := range strings.Lines(report) {
		if line == "\n" {
			break
		}
		what, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		words = append(words, strings.Join(strings.Fields(what), " "))
	}
	return words
}

func TestInstallReportsWhatItDidAndMayBeRepeated(t *testing.T) {
	url := startPostgres(t, nil)
	t.Setenv("PGAMQP_DATABASE_URL", url)

	code, out, errs := pgamqp(t, "install", "--slot", "shop_amqp")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	want := []string{"done publication pgamqp", "done schema amqp", "done slot shop_amqp"}
	if diff := cmp.Diff(want, firstWords(out)); diff != "" {
		t.Errorf("%s\n%s", diff, out)
	}
	if !strings.HasSuffix(out, installNext) {
		t.Errorf("the report does not say how to go on:\n%s", out)
	}

	// The second time nobody names the slot: the one of the installation counts.
	code, out, errs = pgamqp(t, "install")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	want = []string{"present publication pgamqp", "present schema amqp", "present slot shop_amqp"}
	if diff := cmp.Diff(want, firstWords(out)); diff != "" {
		t.Errorf("%s\n%s", diff, out)
	}

	execute(t, url, `insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('x', '0/1', 'p', 'nacked', '', '')`)
	code, out, errs = pgamqp(t, "uninstall")
	if code != exitPrecondition || out != "" || !strings.Contains(errs, "1 message") || !strings.Contains(errs, "--force") {
		t.Errorf("uninstall over dead letters: exit code %d\n%s%s", code, out, errs)
	}
	code, out, errs = pgamqp(t, "uninstall", "--force")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	for _, gone := range []string{"schema amqp", "slot shop_amqp", "publication pgamqp"} {
		if !strings.Contains(out, "removed  "+gone+"\n") {
			t.Errorf("nothing about %s:\n%s", gone, out)
		}
	}
}

func TestPrintedSQLInstallsTheSame(t *testing.T) {
	// --print needs no database.
	t.Setenv("PGHOST", "/nonexistent")
	code, script, errs := pgamqp(t, "install", "--print", "--slot", "by_hand", "--publication", "it's")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	server, err := testserver.StartPostgres(testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	if out, err := server.Psql(t.Context(), "postgres", script); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	code, out, errs := pgamqp(t, "install", "--database-url", server.URL("postgres"))
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	want := []string{"present publication it's", "present schema amqp", "present slot by_hand"}
	if diff := cmp.Diff(want, firstWords(out)); diff != "" {
		t.Errorf("%s\n%s", diff, out)
	}
}

func TestWhatTheServerLacksEndsWithThree(t *testing.T) {
	url := startPostgres(t, map[string]string{"wal_level": "replica"})
	execute(t, url, "create role app login")
	asApp := strings.Replace(url, "postgres@", "app@", 1)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"install", "--database-url", url}, "wal_level"},
		{[]string{"install", "--database-url", asApp}, "alter role .*app.* replication"},
		{[]string{"install", "--database-url", strings.Replace(url, "/shop?", "/other?", 1)}, `database "other" does not exist`},
		{[]string{"install", "--database-url", strings.Replace(url, "postgres@", "nobody@", 1)}, `role "nobody" does not exist`},
	} {
		code, out, errs := pgamqp(t, c.args...)
		if code != exitPrecondition || out != "" || !regexp.MustCompile(c.want).MatchString(errs) {
			t.Errorf("%v: exit code %d, want %d and %q\n%s%s", c.args, code, exitPrecondition, c.want, out, errs)
		}
	}
}

func TestUnreachableServerEndsWithOne(t *testing.T) {
	for _, command := range []string{"install", "uninstall"} {
		code, out, errs := pgamqp(t, command, "--database-url", "host=/nonexistent user=app password=s3cret")
		if code != exitFailure || out != "" || !strings.HasPrefix(errs, "pgamqp: connect to PostgreSQL: ") || strings.Contains(errs, "s3cret") {
			t.Errorf("%s: exit code %d\n%s%s", command, code, out, errs)
		}
	}
}
