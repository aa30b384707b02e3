package main

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/config"
)

// part returns what stands in a document between two marks.
func part(t *testing.T, name, text string) string {
	t.Helper()
	_, after, found := strings.Cut(text, "<!-- "+name+" -->\n")
	inside, _, closed := strings.Cut(after, "<!-- /"+name+" -->")
	if !found || !closed {
		t.Fatalf("there is no part %s", name)
	}
	return inside
}

// The page names the variables that the driver reads, all of them and no others.
func TestConfigurationHasTheVariablesOfTheDriver(t *testing.T) {
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", modPgx).Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(folder)), "pgconn", "config.go"))
	if err != nil {
		t.Fatal(err)
	}
	var read []string
	for _, m := range regexp.MustCompile(`(?m)^\s*"(PG[A-Z_]+)":\s`).FindAllStringSubmatch(string(source), -1) {
		read = append(read, m[1])
	}
	var named []string
	for _, m := range regexp.MustCompile("`(PG[A-Z_]+)`").FindAllStringSubmatch(part(t, "libpq", document(t, "docs", "configuration.md")), -1) {
		named = append(named, m[1])
	}
	slices.Sort(read)
	slices.Sort(named)
	if len(read) < 20 || !slices.Equal(read, named) {
		t.Errorf("the driver reads   %s\nthe page has       %s", strings.Join(read, " "), strings.Join(named, " "))
	}
}

// The page has the exit codes of the help, in the same order.
func TestConfigurationHasTheExitCodes(t *testing.T) {
	code := func(pattern, text string) (codes []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			codes = append(codes, m[1])
		}
		return codes
	}
	_, text, _ := strings.Cut(document(t, "docs", "configuration.md"), "\n## Exit codes\n")
	want, got := code(`(?m)^  (\d)  `, exitCodeHelp), code(`(?m)^\| (\d) \|`, text)
	if len(want) != exitPublication+1 || !slices.Equal(want, got) {
		t.Errorf("the page has %q, the help %q", got, want)
	}
}

// What SIGHUP takes up is what the reference of the settings says.
func TestReloadTakesUpWhatTheReferenceSays(t *testing.T) {
	other := map[string]string{
		"database_url": "host=other", "slot": "other", "publication": "other", "listen": ":1", "window_messages": "3", "window_bytes": "1MiB",
		"shutdown_timeout": "3s", "nack_retry_timeout": "3s", "detach_after": "3s", "heartbeat_interval": "3s", "log_level": "warn",
		"log_format": "json", "pg_headers": "lsn", "web_config": "web.yaml", "daemon_url": "https://other",
		"secrets_dir": "/other", "otlp_endpoint": "https://other",
	}
	for _, o := range config.Options() {
		t.Run(o.Name, func(t *testing.T) {
			load := func() (config.Loaded, error) {
				return config.Load(config.Input{Flags: map[string]string{o.Flag: other[o.Name]}})
			}
			var log bytes.Buffer
			level := new(slog.LevelVar)
			r := &reloader{load: load, running: config.Default(), level: level}
			if !r.reload(newLogger(&log, config.LogText, level)) {
				t.Fatal(log.String())
			}
			want := `after_a_restart=` + o.Name + "\n"
			if o.Reloads {
				want = `after_a_restart=""` + "\n"
			}
			if !strings.HasSuffix(log.String(), want) {
				t.Errorf("SIGHUP takes it up: %t; the log says %s", o.Reloads, log.String())
			}
		})
	}
}
