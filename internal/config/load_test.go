package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgamqp/pgamqp/internal/config"
)

// writeFile writes a configuration file and returns its path.
func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgamqp.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNothingGivenMeansDefaults(t *testing.T) {
	l, err := config.Load(config.Input{Environ: []string{"HOME=/root", "PGHOST=db", "PGAMQP_TEST_SEED=1", "PGAMQP_SECRET_RABBIT=x", "PGAMQP_SLOT="}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), l.Config); diff != "" {
		t.Error(diff)
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	file := writeFile(t, "# what we run\nslot: from_file\npublication: from_file\nlisten: ':1'\nwindow_bytes: 1 MiB\npg_headers: [lsn, role]\n")
	l, err := config.Load(config.Input{
		Environ: []string{
			"PGAMQP_CONFIG=" + file, "PGAMQP_PUBLICATION=from_env", "PGAMQP_LISTEN=:2",
			"PGAMQP_WINDOW_MESSAGES=10", "PGAMQP_LOG_FORMAT=JSON", "PGAMQP_SHUTDOWN_TIMEOUT=1m",
		},
		Flags: map[string]string{"listen": ":3", "log-level": "warn"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := l.WriteYAML(&got); err != nil {
		t.Fatal(err)
	}
	want := `
database_url: ""         # default
slot: from_file          # file FILE:2
publication: from_env    # environment PGAMQP_PUBLICATION
listen: :3               # flag --listen
web_config: ""           # default
daemon_url: ""           # default
window_messages: 10      # environment PGAMQP_WINDOW_MESSAGES
window_bytes: 1MiB       # file FILE:5
shutdown_timeout: 1m0s   # environment PGAMQP_SHUTDOWN_TIMEOUT
nack_retry_timeout: 30s  # default
detach_after: 10s        # default
heartbeat_interval: 10s  # default
log_level: warn          # flag --log-level
log_format: json         # environment PGAMQP_LOG_FORMAT
pg_headers: lsn,role     # file FILE:6
secrets_dir: ""          # default
otlp_endpoint: ""        # default
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), strings.ReplaceAll(got.String(), file, "FILE")); diff != "" {
		t.Error(diff)
	}
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	file := writeFile(t, `
slott: x
slot: Bad-Name
slot: twice
listen:
window_messages: {a: 1}
window_bytes: 32 apples
pg_headers: [lsn, weather]
`)
	_, err := config.Load(config.Input{
		File: file,
		Environ: []string{
			"PGAMQP_DATABASE_ULR=x", "PGAMQP_SOMETHING_ELSE=1", "PGAMQP_DATABASE_URL=mysql://h/db", "PGAMQP_SHUTDOWN_TIMEOUT=25",
			"PGAMQP_LOG_LEVEL=loud", "PGAMQP_LOG_FORMAT=xml", "PGAMQP_NACK_RETRY_TIMEOUT=-1s",
		},
		Flags: map[string]string{"heartbeat-interval": "1ms", "listen": "9465", "window-messages": "many"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	want := `
PGAMQP_DATABASE_ULR: there is no such setting; did you mean PGAMQP_DATABASE_URL? (environment)
PGAMQP_SOMETHING_ELSE: there is no such setting; ` + "`pgamqp config`" + ` lists all (environment)
slott: there is no such setting; did you mean slot? (file FILE:2)
slot: it is set in line 3 already: remove one of the two (file FILE:4)
listen: it has no value: write one, or remove the line (file FILE:5)
window_messages: it takes one value, or a list of values (file FILE:6)
window_bytes: "32 apples" is not a size: write a whole number and a unit out of B, KiB, MiB, GiB, kB, MB, GB, such as 32MiB (file FILE:7)
pg_headers: "weather" is not a header about the origin: write some of lsn,xid,commit_time,role, with commas between them (file FILE:8)
shutdown_timeout: "25" is not a time: write a number with a unit, such as 30s or 500ms (environment PGAMQP_SHUTDOWN_TIMEOUT)
log_level: "loud" is not a log level: write debug, info, warn or error (environment PGAMQP_LOG_LEVEL)
log_format: "xml" is not a log format: write text or json (environment PGAMQP_LOG_FORMAT)
window_messages: "many" is not a number: write digits only, such as 2048 (flag --window-messages)
database_url: a URL that begins with mysql:// is not PostgreSQL's: write postgres://user@host/database (environment PGAMQP_DATABASE_URL)
slot: "Bad-Name" cannot name a slot: write 1 to 63 characters out of a-z, 0-9 and _ (file FILE:3)
listen: "9465" is not an address: write host:port, such as 127.0.0.1:9465, or :9465 for all addresses (flag --listen)
nack_retry_timeout: -1s is out of bounds: write 0s to 24h0m0s (environment PGAMQP_NACK_RETRY_TIMEOUT)
heartbeat_interval: 1ms is out of bounds: write 1s to 1h0m0s (flag --heartbeat-interval)`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), strings.ReplaceAll(err.Error(), file, "FILE")); diff != "" {
		t.Error(diff)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty":              {"", ""},
		"comments":           {"# nothing\n---\n# yet\n", ""},
		"list":               {"- slot\n", "line 1: write one `key: value` on each line"},
		"text":               {"slot\n", "line 1: write one `key: value` on each line"},
		"two documents":      {"slot: a\n---\nslot: b\n", "more than one document"},
		"not YAML":           {"slot: [\n", "did not find expected node content"},
		"list of lists":      {"pg_headers: [[lsn]]\n", "a list may contain plain values only"},
		"null":               {"slot: ~\n", "it has no value"},
		"alias":              {"slot: &n abc\npublication: *n\n", ""},
		"alias without name": {"slot: *n\n", "unknown anchor"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(config.Input{File: writeFile(t, c.content)})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestMissingFileIsAnErrorThatNamesIt(t *testing.T) {
	_, err := config.Load(config.Input{File: "/nonexistent/pgamqp.yaml"})
	const want = "read configuration file /nonexistent/pgamqp.yaml: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestShownConfigurationCanBeLoadedAgain(t *testing.T) {
	flags := map[string]string{
		"database-url": "host=db user='o\\'' options='-c a=#1\n'", "slot": "s", "publication": "p: #\"'", "listen": "[::1]:80",
		"window-messages": "7", "window-bytes": "100001", "shutdown-timeout": "1500ms", "nack-retry-timeout": "0s",
		"detach-after": "0s", "heartbeat-interval": "1h", "log-level": "error", "log-format": "json", "pg-headers": "role, xid",
		"secrets-dir": "/run/secrets", "web-config": "w.yaml", "daemon-url": "https://h:1", "otlp-endpoint": "https://collector/otlp",
	}
	if len(flags) != len(config.Options()) {
		t.Fatal("this test must set every option")
	}
	first, err := config.Load(config.Input{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	if err := first.WriteYAML(&shown); err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(config.Input{File: writeFile(t, shown.String())})
	if err != nil {
		t.Fatalf("%v in\n%s", err, shown.String())
	}
	if diff := cmp.Diff(first.Config, again.Config); diff != "" {
		t.Errorf("%s\n%s", diff, shown.String())
	}
	for _, o := range config.Options() {
		if !strings.HasPrefix(again.Origin(o.Name), "file ") {
			t.Errorf("%s comes from %s", o.Name, again.Origin(o.Name))
		}
	}
}
