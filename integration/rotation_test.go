package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestPasswordAndCertificatesOfPostgresAreReplacedWhileItRuns replaces everything that database_url says and names, first on
// one side and then on the other, and cuts the connections between.
func TestPasswordAndCertificatesOfPostgresAreReplacedWhileItRuns(t *testing.T) {
	t.Parallel()
	const byPassword, byCertificate = "rotated_password", "rotated_certificate"
	ca, dir := authority(t, "old"), t.TempDir()
	server := issue(t, ca, "localhost", time.Hour)
	server.ClientCA = ca.PEM()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{TLS: server, HBA: []string{
		"local all postgres trust", "host all postgres 127.0.0.1/32 trust",
		"hostssl all " + byPassword + " 127.0.0.1/32 scram-sha-256", "hostssl all " + byCertificate + " 127.0.0.1/32 cert",
	}})})
	w.queue(1, "q")
	data := value[string](w, `show data_directory`)
	ofServer := func(name string, content []byte) {
		path := filepath.Join(data, name)
		info, err := os.Stat(data)
		if err != nil {
			t.Fatal(err)
		}
		putFile(t, path, content)
		owner := info.Sys().(*syscall.Stat_t)
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	passwords := func(password string) {
		putFile(t, filepath.Join(dir, "passfile"), fmt.Appendf(nil, "*:*:*:%s:%s\n", byPassword, password))
	}
	certificates := func(ca *testserver.Authority) {
		client := issue(t, ca, byCertificate, time.Hour)
		putFile(t, filepath.Join(dir, "key.pem"), client.Key) // for a moment it does not fit
		putFile(t, filepath.Join(dir, "cert.pem"), client.Certificate)
		putFile(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	}
	passwords(rolePassword)
	certificates(ca)
	for _, role := range []string{byPassword, byCertificate} {
		w.exec(`create role ` + role + ` login replication password '` + rolePassword + `' in role pgamqp_daemon`)
	}
	for _, c := range []struct {
		role, options       string
		onServer, onTheSide func()
		refused             string
	}{
		{
			byPassword, "passfile=DIR/passfile&sslrootcert=DIR/ca.pem",
			func() { w.exec(`alter role ` + byPassword + ` password 'Another-password'`) },
			func() { passwords("Another-password") },
			`password authentication failed`,
		},
		{
			byCertificate, "sslrootcert=DIR/ca.pem&sslcert=DIR/cert.pem&sslkey=DIR/key.pem",
			func() {
				ca = authority(t, "new")
				server := issue(t, ca, "localhost", time.Hour)
				ofServer("root.crt", ca.PEM())
				ofServer("server.key", server.Key)
				ofServer("server.crt", server.Certificate)
				w.exec(`select pg_reload_conf()`)
			},
			func() { certificates(ca) },
			`certificate signed by unknown authority; the server's certificate is signed by nobody we trust`,
		},
	} {
		url := fmt.Sprintf("postgres://%s@localhost:%d/%s?sslmode=verify-full&%s", c.role, w.postgres.Port(), w.database, strings.ReplaceAll(c.options, "DIR", dir))
		d := launch(t, "run", "--database-url", url, "--slot", w.slot, "--listen", "127.0.0.1:0", "--heartbeat-interval", "1s")
		d.waitReady()
		var sent []string
		send := func(text string) {
			sent = append(sent, text)
			w.exec(`select amqp.publish(1, '', 'q', $1), amqp.publish(1, '', 'nowhere', $1)`, text)
		}
		cut := func() {
			w.exec(`select pg_terminate_backend(pid) from pg_stat_activity where usename = $1`, c.role)
		}
		send("before")
		w.waitDelivered()
		c.onServer()
		send("the connections are as they were")
		cut()
		send("nobody is let in")
		await(t, startLimit, "the log says "+c.refused, func() bool { return strings.Contains(d.log.String(), c.refused) })
		c.onTheSide()
		send("again")
		w.waitDelivered()
		cut()
		send("once more")
		compare(sent, w.received(1, "q")).wantComplete(t)
		if n := value[int](w, `select count(distinct convert_from(body, 'UTF8'))::int from amqp.dead_letter`); n != len(sent) {
			t.Errorf("%d dead letters, want %d", n, len(sent))
		}
		w.exec(`delete from amqp.dead_letter`)
		if code := d.stop(); code != 0 {
			t.Errorf("as %s: exit code %d", c.role, code)
		}
	}
}

// A daemon may wait for its server for long before the first stream.
func TestPasswordIsReplacedWhileTheDaemonWaitsForItsServer(t *testing.T) {
	t.Parallel()
	const role = "waiting"
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{HBA: []string{
		"local all postgres trust", "host all postgres 127.0.0.1/32 trust", "host all " + role + " 127.0.0.1/32 scram-sha-256",
	}})})
	w.exec(`create role ` + role + ` login replication password '` + rolePassword + `' in role pgamqp_daemon`)
	p := startProxy(t, fmt.Sprintf("127.0.0.1:%d", w.postgres.Port()))
	p.refuse()
	passfile := filepath.Join(t.TempDir(), "passfile")
	putFile(t, passfile, []byte("*:*:*:*:Password-of-before\n"))
	url := fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable&passfile=%s", role, p.port(), w.database, passfile)
	d := launch(t, "run", "--database-url", url, "--slot", w.slot, "--listen", "127.0.0.1:0")
	d.waitLog("cannot check the database, trying again")
	putFile(t, passfile, []byte("*:*:*:*:"+rolePassword+"\n"))
	p.accept()
	d.waitReady()
}
