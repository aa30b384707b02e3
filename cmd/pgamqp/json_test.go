package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// printed runs a command with --json and reads what it prints.
func printed[T any](t *testing.T, code int, args ...string) (value T) {
	t.Helper()
	got, out, errs := pgamqp(t, append(args, "--json")...)
	if got != code {
		t.Fatalf("%q ends with %d, want %d\n%s%s", args, got, code, out, errs)
	}
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return value
}

func TestInstallAndUninstallPrintJSON(t *testing.T) {
	server, err := testserver.StartPostgres(testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	type lists map[string][]string
	url := server.URL("postgres")
	if got := printed[lists](t, exitOK, "install", "--database-url", url); len(got["done"]) != 3 || len(got["present"]) != 0 || got["warnings"] == nil {
		t.Errorf("install: %q", got)
	}
	if got := printed[lists](t, exitOK, "install", "--database-url", url); len(got["done"]) != 0 || len(got["present"]) != 3 {
		t.Errorf("again: %q", got)
	}
	const letter = `insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('o', '0/1', 'publish', 'invalid', '', '')`
	if out, err := server.Psql(t.Context(), "postgres", letter); err != nil {
		t.Fatal(err, out)
	}
	if got := printed[lists](t, exitPrecondition, "uninstall", "--database-url", url); len(got["removed"]) != 0 || got["removed"] == nil {
		t.Errorf("refused: %q", got)
	}
	if out, err := server.Psql(t.Context(), "postgres", "delete from amqp.dead_letter"); err != nil {
		t.Fatal(err, out)
	}
	if got := printed[lists](t, exitOK, "uninstall", "--database-url", url); !slices.Contains(got["removed"], "schema amqp") || got["kept"] == nil {
		t.Errorf("uninstall: %q", got)
	}
}

func TestConfigPrintsJSON(t *testing.T) {
	t.Setenv("PGAMQP_DATABASE_URL", "postgres://app:s3cret@db.example.com/shop")
	got := printed[[]config.Setting](t, exitOK, "config", "--slot", "given")
	if len(got) != len(config.Options()) {
		t.Errorf("%d settings, want %d", len(got), len(config.Options()))
	}
	for _, want := range []config.Setting{
		{Name: "database_url", Value: "postgres://app:xxxxx@db.example.com/shop", Origin: "environment PGAMQP_DATABASE_URL"},
		{Name: "slot", Value: "given", Origin: "flag --slot"},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %v in %v", want, got)
		}
	}
}

func TestHealthPrintsJSON(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "not ready: standby of nobody", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("alive\n"))
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	if got := printed[healthAnswer](t, exitOK, "health", "--listen", address); got != (healthAnswer{true, "alive"}) {
		t.Errorf("alive: %+v", got)
	}
	if got := printed[healthAnswer](t, exitFailure, "health", "--ready", "--listen", address); got.Good || !strings.HasSuffix(got.Says, "not ready: standby of nobody") {
		t.Errorf("not ready: %+v", got)
	}
}
