package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop"))
}

// pgamqp runs one command line in this process.
func pgamqp(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// golden compares with a file in testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got, -update rewrites it):\n%s", file, diff)
	}
}

// everyCommand returns a command and all below it, but for those that only the program itself calls.
func everyCommand(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Hidden && c.HasParent() {
			continue
		}
		all = append(all, everyCommand(sub)...)
	}
	return all
}

func TestHelpOfEveryCommand(t *testing.T) {
	for _, c := range everyCommand(newRootCommand()) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			path := strings.Fields(c.CommandPath())
			code, out, errs := pgamqp(t, append(path[1:], "--help")...)
			if code != 0 || errs != "" {
				t.Errorf("exit code %d, %s", code, errs)
			}
			golden(t, "help/"+strings.Join(path[min(1, len(path)-1):], "-")+".txt", out)
			for line := range strings.Lines(out) {
				if len(strings.TrimRight(line, "\n")) > 84 {
					t.Errorf("too long for a terminal: %s", line)
				}
			}
			if !strings.Contains(out, "Examples:") {
				t.Error("no example")
			}
		})
	}
}

func TestMistakesInTheCommandLineEndWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"runn"},
		{"run", "now"},
		{"run", "--slott", "x"},
		{"--slot", "x"},
		{"version", "--json=perhaps"},
		{"config", "--slot"},
		{"config", "--slot", "Bad-Name"},
		{"run", "--listen", "nowhere"},
		{"config", "--config", "/nonexistent/x.yaml"},
		{"run", "--database-url", "postgres://localhost/x?sslmode=perhaps"},
		{"migrate"},
		{"migrate", "--from-pg_amqp", "--undo"},
		{"migrate", "--undo", "--keep-public"},
	} {
		code, out, errs := pgamqp(t, args...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errs, "pgamqp: ") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestMistakesInTheConfigurationAreShownTogether(t *testing.T) {
	t.Setenv("PGAMQP_SLOTT", "x")
	code, _, errs := pgamqp(t, "config", "--window-bytes", "huge", "--listen", "9465")
	want := `pgamqp: configuration:
  PGAMQP_SLOTT: there is no such setting; did you mean PGAMQP_SLOT? (environment)
  window_bytes: "huge" is not a size: write a whole number and a unit out of B, KiB, MiB, GiB, kB, MB, GB, such as 32MiB (flag --window-bytes)
  listen: "9465" is not an address: write host:port, such as 127.0.0.1:9465, or :9465 for all addresses (flag --listen)
`
	if diff := cmp.Diff(want, errs); diff != "" || code != exitUsage {
		t.Errorf("exit code %d\n%s", code, diff)
	}
}

func TestConfigShowsOriginsAndNoPassword(t *testing.T) {
	t.Setenv("PGAMQP_DATABASE_URL", "postgres://app:s3cret@db.example.com/shop")
	t.Setenv("PGAMQP_SLOT", "from_env")
	code, out, errs := pgamqp(t, "config", "--window-bytes", "64MiB", "--slot=from_flag")
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	golden(t, "config.txt", out)
}

func TestConnectionStringOfTheDriverIsNotLeaked(t *testing.T) {
	for _, url := range []string{
		"postgres://app:s3cret@db:port/shop",
		"postgres://app:s3cret/x@db/shop",
		"postgres://app:s3c%zzret@db/shop",
		"host=db password = 's3cret s3cret' sslmode=perhaps",
		"host=db password='s3cret",
		"password=s3cret s3cret",
		"host=db user=s3cret s3cret",
	} {
		code, out, errs := pgamqp(t, "config", "--database-url", url)
		if code != exitUsage || strings.Contains(out+errs, "s3c") && !strings.Contains(url, "user=s3c") {
			t.Errorf("%s: exit code %d\n%s%s", url, code, out, errs)
		}
		if !strings.Contains(errs, "database_url: ") {
			t.Errorf("%s: %s", url, errs)
		}
	}
}

func TestListOfHostsIsAccepted(t *testing.T) {
	for _, url := range []string{
		"postgres://app@db1:5432,db2:5433/shop?target_session_attrs=read-write",
		"host=db1,db2 port=5432,5433 target_session_attrs=read-write",
	} {
		if code, _, errs := pgamqp(t, "config", "--database-url", url); code != exitOK {
			t.Errorf("%s: exit code %d: %s", url, code, errs)
		}
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := pgamqp(t, "version")
	if code != exitOK || !strings.HasPrefix(out, "pgamqp ") {
		t.Errorf("exit code %d: %s", code, out)
	}
	code, out, _ = pgamqp(t, "version", "--json")
	var b build
	if err := json.Unmarshal([]byte(out), &b); err != nil || code != exitOK || b != currentBuild() {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}
