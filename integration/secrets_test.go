package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// wantNoPassword checks what the program shows in any other way than its output, which is always checked.
func wantNoPassword(t *testing.T, where, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("%s is empty", where)
	}
	if at := strings.Index(text, anyPassword); at >= 0 {
		t.Errorf("%s shows a password: ...%s", where, text[max(0, at-200):min(len(text), at+len(anyPassword)+40)])
	}
}

// Whoever may look at the list of processes, the status page or the metrics sees no password: not that for PostgreSQL, given by
// file or environment, not that of a broker, given by row, file or variable.
func TestPasswordsOfBrokerAndDatabaseAreSeenNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 3})
	w.queue(1, "q")
	user := w.limitedUser(".*")
	folder := t.TempDir()
	settings := filepath.Join(folder, "pgamqp.yaml")
	for path, text := range map[string]string{
		settings:                          "database_url: " + w.url() + "\nsecrets_dir: " + folder + "\nslot: " + w.slot + "\nlisten: 127.0.0.1:0\nlog_level: debug\n",
		filepath.Join(folder, "password"): userPassword,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.exec(`update amqp.broker set username = $1, password = 'file:password' where broker_id = 2`, user)
	w.exec(`update amqp.broker set username = $1, password = 'env:PGAMQP_SECRET_ONE' where broker_id = 3`, user)
	common := []string{"PGAMQP_SECRETS_DIR=" + folder, "PGAMQP_SLOT=" + w.slot, "PGAMQP_LISTEN=127.0.0.1:0"}
	for _, environment := range [][]string{
		{"PGAMQP_CONFIG=" + settings},
		append([]string{"PGAMQP_DATABASE_URL=" + w.url()}, common...),
		append([]string{
			"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", w.postgres.Port()), "PGUSER=postgres", "PGPASSWORD=" + rolePassword, "PGDATABASE=" + w.database, "PGSSLMODE=disable",
		}, common...),
	} {
		cmd := exec.Command(shared.program, "run")
		cmd.Env = append(append(cleanEnvironment(), environment...), "PGAMQP_SECRET_ONE="+wrongPassword)
		d := follow(t, cmd)
		d.waitReady()
		for broker := 1; broker <= 3; broker++ { // the limited user may enter 1 only, and the password of 3 is wrong
			w.exec(`select amqp.publish($1, '', 'q', 'to someone')`, broker)
		}
		d.waitLog("broker=3")
		commandLine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		wantNoPassword(t, "the list of processes", string(commandLine))
		for _, path := range []string{"/", "/metrics", "/healthz", "/readyz"} {
			_, body := d.get(path)
			wantNoPassword(t, path, body)
		}
		wantNoPassword(t, "/events", firstEvent(t, d))
		if code := d.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}

	d := w.start("--secrets-dir", folder)
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"doctor"}, {"doctor", "--json"}, {"dead-letters", "list"}, {"dead-letters", "list", "--json"}, {"config"}, {"install", "--print"},
	} {
		args = append(args, "--database-url", w.url())
		if args[0] == "status" || args[0] == "doctor" {
			args = append(args, "--slot", w.slot, "--listen", d.address())
		}
		_, output := pgamqp(t, args...)
		wantNoPassword(t, strings.Join(args[:2], " "), output)
	}
	tail := launch(t, "tail", "--database-url", w.url(), "--json", "--count", "1")
	tail.waitLog("watching from ")
	w.exec(`update amqp.broker set password = $1 where broker_id = 3`, changedPassword) // which is announced in the stream
	w.exec(`select amqp.publish(1, '', 'q', 'seen')`)
	tail.ends(0, "seen")
}

// firstEvent reads the first event of the status page.
func firstEvent(t *testing.T, d *daemon) string {
	t.Helper()
	request, err := http.NewRequestWithContext(withDeadline(t, startLimit), http.MethodGet, "http://"+d.address()+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := d.ask.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	text := make([]byte, 64<<10)
	n, err := io.ReadAtLeast(reply.Body, text, 1)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[:n])
}

// Each command that reaches PostgreSQL is refused, and shows neither the password nor the connection string that has it.
func TestPasswordThatPostgresRefusesIsNotShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{HBA: []string{
		"host all someone all scram-sha-256", "host all all all trust", "local all all trust",
	}})})
	w.exec(`create role someone login superuser password '` + rolePassword + `'`)
	wrong := strings.Replace(w.urlAs("someone"), rolePassword, wrongPassword, 1)
	unreadable := strings.Replace(wrong, "127.0.0.1:", "127.0.0.1:x", 1)
	for _, args := range [][]string{
		{"install"},
		{"uninstall"},
		{"doctor"},
		{"doctor", "--json"},
		{"status"},
		{"status", "--json"},
		{"dead-letters", "list", "--json"},
		{"dead-letters", "show", "1"},
		{"dead-letters", "redeliver", "1"},
		{"dead-letters", "purge", "1"},
		{"snapshot"},
		{"tail"},
	} {
		code, output := pgamqp(t, append(args, "--database-url", wrong)...)
		if code == 0 || !strings.Contains(output, "password authentication failed") {
			t.Errorf("%q ends with %d and says\n%s", args, code, output)
		}
		if code, output := pgamqp(t, append(args, "--database-url", unreadable)...); code == 0 || output == "" {
			t.Errorf("%q with a URL that cannot be read ends with %d and says\n%s", args, code, output)
		}
	}
}
