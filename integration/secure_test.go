package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// issue makes a certificate for a name and 127.0.0.1 that holds for an hour, or for less than none.
func issue(t *testing.T, a *testserver.Authority, name string, valid time.Duration) *testserver.TLS {
	t.Helper()
	c, err := a.Issue(name, net.IPv4(127, 0, 0, 1), time.Now().Add(valid))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func authority(t *testing.T, name string) *testserver.Authority {
	t.Helper()
	a, err := testserver.NewAuthority(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// secureRabbit starts a node with a TLS listener. With clients it wants their certificates, and takes them for logins.
func secureRabbit(t *testing.T, server *testserver.TLS, clients *testserver.Authority) *testserver.RabbitMQ {
	t.Helper()
	options := testserver.RabbitMQOptions{TLS: server}
	if clients != nil {
		options.TLS.ClientCA = clients.PEM()
		options.Plugins = []string{"rabbitmq_auth_mechanism_ssl"}
		options.Config = []string{"auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL", "ssl_cert_login_from = common_name"}
	}
	node, err := testserver.StartRabbitMQ(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node
}

// putFile makes or replaces a file as a careful administrator does: a reader sees the old one or the new one.
func putFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// certificateOf returns the subject of the certificate that the daemon shows to its broker, and as whom it is logged in.
func (w *world) certificateOf() (subject, user string) {
	w.t.Helper()
	var all []struct {
		VHost   string `json:"vhost"`
		User    string `json:"user"`
		Subject string `json:"peer_cert_subject"`
		State   string `json:"state"`
		Client  struct {
			Name string `json:"connection_name"`
		} `json:"client_properties"`
	}
	if err := w.rabbit.API(withDeadline(w.t, sqlLimit), http.MethodGet, "/connections", nil, &all); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		if c.VHost == w.vhosts[0] && c.Client.Name == "pgamqp "+w.slot && c.State == "running" {
			subject, user = c.Subject, c.User
		}
	}
	return subject, user
}

// TestBrokerOverTLS shows what is wrong with each wrong certificate, the login by certificate, and that certificates can
// be replaced while messages flow.
func TestBrokerOverTLS(t *testing.T) {
	t.Parallel()
	ca, clients, other := authority(t, "servers"), authority(t, "clients"), authority(t, "nobody")
	w := newWorld(t, worldOptions{rabbit: secureRabbit(t, issue(t, ca, "rabbit.example.com", time.Hour), clients)})
	w.queue(1, "q")
	dir := t.TempDir()
	client := issue(t, clients, "first", time.Hour)
	ctx := withDeadline(t, sqlLimit)
	for _, name := range []string{"first", "second"} {
		if err := w.rabbit.AddUser(ctx, name, userPassword, ""); err != nil {
			t.Fatal(err)
		}
		if err := w.rabbit.SetPermissions(ctx, w.vhosts[0], name, "", ".*", ""); err != nil {
			t.Fatal(err)
		}
	}
	// The certificate of nobody has the name of the right one.
	stranger := issue(t, other, "first", time.Hour)
	d := w.start("--secrets-dir", dir)
	for _, c := range []struct {
		name, port, ca, cert, key, server string
		want                              string
	}{
		{name: "unknown authority", ca: string(other.PEM()), want: `signed by nobody we trust: give the certificate of its authority in amqp.broker.tls_ca`},
		{name: "only those of the system", want: `signed by nobody we trust`},
		{name: "other name", ca: string(ca.PEM()), server: "other.example.com", want: `valid for rabbit.example.com, not other.example.com; .*tls_server_name`},
		{name: "port without TLS", ca: string(ca.PEM()), port: "plain", want: `the port does not speak TLS`},
		{name: "no PEM", ca: "nonsense", want: `tls_ca holds no certificate in PEM form`},
		{name: "no certificate of ours", ca: string(ca.PEM()), want: `the broker has refused the handshake: see its log, and amqp.broker.tls_cert`},
		{name: "a stranger's", ca: string(ca.PEM()), cert: string(stranger.Certificate), key: string(stranger.Key), want: `the broker has refused the handshake`},
		{name: "key of another", ca: string(ca.PEM()), cert: string(client.Certificate), key: string(stranger.Key), want: `tls_cert and tls_key: tls: private key does not match public key`},
		{name: "file that is not there", ca: "file:missing.pem", want: `tls_ca: read file:missing.pem: in secrets_dir \(.*\): .*no such file`},
		{name: "file elsewhere", ca: "file:/etc/passwd", want: `write the name of a file in secrets_dir \(.*\), not a path`},
		{name: "variable of another kind", ca: "env:PATH", want: `only variables that begin with PGAMQP_SECRET_`},
	} {
		port := w.rabbit.TLSPort()
		if c.port == "plain" {
			port = w.rabbit.Port()
		}
		from := len(d.log.String())
		w.exec(`update amqp.broker set port = $1, tls = true, tls_ca = nullif($2, ''), tls_cert = nullif($3, ''), tls_key = nullif($4, ''), tls_server_name = nullif($5, '')`,
			port, c.ca, c.cert, c.key, c.server)
		await(t, time.Minute, c.name, func() bool {
			return regexp.MustCompile(c.want).MatchString(strings.ReplaceAll(d.log.String()[from:], `\"`, `"`))
		})
	}

	// By password, with a certificate and with all of it in files.
	for name, content := range map[string][]byte{"ca.pem": ca.PEM(), "cert.pem": client.Certificate, "key.pem": client.Key, "password": []byte(wrongPassword + "\n")} {
		putFile(t, filepath.Join(dir, name), content)
	}
	w.exec(`update amqp.broker set port = $1, tls_ca = 'file:ca.pem', tls_cert = 'file:cert.pem', tls_key = 'file:key.pem', tls_server_name = null,
		username = 'first', password = 'file:password'`, w.rabbit.TLSPort())
	w.exec(`select amqp.publish(1, '', 'q', 'by password')`)
	d.waitLog("username or password not allowed")
	putFile(t, filepath.Join(dir, "password"), []byte(userPassword+"\n"))
	w.waitDelivered()

	// By certificate; it is replaced while messages flow.
	conn := w.connect()
	for _, b := range claimed(t, "docs/operations.md") {
		runSQL(t, conn, b, "5671", fmt.Sprint(w.rabbit.TLSPort()))
	}
	l := w.startTrickle("", "q")
	await(t, time.Minute, "the daemon logs in by its certificate", func() bool {
		subject, user := w.certificateOf()
		return user == "first" && subject == "CN=first"
	})
	next := issue(t, clients, "second", time.Hour)
	putFile(t, filepath.Join(dir, "cert.pem"), next.Certificate) // for a moment the two do not fit
	putFile(t, filepath.Join(dir, "key.pem"), next.Key)
	await(t, time.Minute, "the daemon logs in by its new certificate", func() bool {
		_, user := w.certificateOf()
		return user == "second"
	})
	if err := os.Remove(filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	d.waitLog("cannot read a secret that amqp.broker refers to")
	n := l.stop()
	w.waitDelivered()
	if _, user := w.certificateOf(); user != "second" {
		t.Errorf("without its file the daemon is logged in as %q", user)
	}
	compare(append([]string{"by password"}, good(n)...), w.received(1, "q")).wantComplete(t)
	if strings.Contains(d.log.String(), "PRIVATE KEY") {
		t.Error("a key is in the log")
	}
}

func TestBrokerOverTLSWithAnExpiredCertificate(t *testing.T) {
	t.Parallel()
	ca := authority(t, "servers")
	w := newWorld(t, worldOptions{rabbit: secureRabbit(t, issue(t, ca, "rabbit.example.com", -time.Minute), nil)})
	w.exec(`update amqp.broker set port = $1, tls = true, tls_ca = $2`, w.rabbit.TLSPort(), string(ca.PEM()))
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'm')`)
	d.waitLog("the broker needs a new certificate, or one of the clocks is wrong")
	d.wantLog("certificate has expired")
}

// TestMetricsOverTLSWithALogin protects the HTTP server as docs/operations.md shows it, and asks it by the commands.
func TestMetricsOverTLSWithALogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	ca, dir := authority(t, "web"), t.TempDir()
	served := issue(t, ca, "pgamqp.example.com", time.Hour)
	hash, err := bcrypt.GenerateFromPassword([]byte(userPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := "tls_server_config: {cert_file: web.pem, key_file: web.key}\nbasic_auth_users: {prometheus: '" + string(hash) + "'}\n"
	file, caFile := filepath.Join(dir, "web.yaml"), filepath.Join(dir, "ca.pem")
	for name, content := range map[string][]byte{"web.pem": served.Certificate, "web.key": served.Key, "ca.pem": ca.PEM(), "web.yaml": []byte(config)} {
		putFile(t, filepath.Join(dir, name), content)
	}
	d := w.launch("--web-config", file)
	d.waitLog("msg=streaming")
	url := "https://prometheus:" + userPassword + "@" + d.address()
	ask := func(code int, env, url string, patterns ...string) {
		t.Helper()
		cmd := exec.Command(shared.program, "health", "--ready")
		cmd.Env = append(cleanEnvironment(), "PGAMQP_DAEMON_URL="+url, env)
		asked := follow(t, cmd)
		if got := asked.wait(time.Minute); got != code {
			t.Errorf("exit code %d, want %d", got, code)
		}
		wantMatch(t, asked.log.String(), patterns...)
	}
	trusted := "SSL_CERT_FILE=" + caFile
	ask(0, trusted, url, `^ready\n$`)
	ask(1, trusted, strings.Replace(url, userPassword, wrongPassword, 1), `ask the daemon at https://prometheus:xxxxx@.*: it answers 401 Unauthorized`)
	ask(1, trusted, "https://"+d.address(), `it answers 401`)
	d.waitLog(`msg="refused a login to the HTTP server" address=127.0.0.1:`)
	if n := strings.Count(d.log.String(), "refused a login"); n != 1 || strings.Contains(d.log.String(), wrongPassword) {
		t.Errorf("%d lines about refused logins", n)
	}
	ask(1, "SSL_CERT_FILE=/dev/null", url, `certificate signed by unknown authority`)
	ask(1, trusted, strings.Replace(url, "https:", "http:", 1), `it answers 400`)

	// A new certificate counts from the next connection on.
	ca = authority(t, "web again")
	served = issue(t, ca, "pgamqp.example.com", time.Hour)
	putFile(t, filepath.Join(dir, "web.key"), served.Key)
	putFile(t, filepath.Join(dir, "web.pem"), served.Certificate)
	putFile(t, caFile, ca.PEM())
	ask(0, trusted, url, `^ready\n$`)
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	putFile(t, file, []byte("tls_server_config: {cert_file: missing.pem, key_file: web.key}\n"))
	w.refuseRun(exitUsage, []string{"--web-config", file}, `web_config .*web\.yaml: .*missing\.pem: no such file`)
	putFile(t, file, []byte("basic_auth_users: {prometheus: secret}\n"))
	w.refuseRun(exitUsage, []string{"--web-config", file}, `web_config .*web\.yaml: `)
}

// TestPostgresOverVerifiedTLS goes through what a connection string can ask of TLS.
func TestPostgresOverVerifiedTLS(t *testing.T) {
	t.Parallel()
	ca, other, dir := authority(t, "servers"), authority(t, "others"), t.TempDir()
	server := issue(t, ca, "localhost", time.Hour)
	server.ClientCA = ca.PEM()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{TLS: server, HBA: []string{
		"local all postgres trust", "host all postgres 127.0.0.1/32 trust",
		"hostssl all by_password 127.0.0.1/32 scram-sha-256", "hostssl all by_certificate 127.0.0.1/32 cert",
	}})})
	w.queue(1, "q")
	for _, role := range []string{"by_password", "by_certificate"} {
		w.exec(`create role ` + role + ` login replication password '` + rolePassword + `' in role pgamqp_daemon`)
	}
	w.exec(`grant create on database ` + w.database + ` to by_password, by_certificate`)
	elsewhere := ownPostgres(t, testserver.PostgresOptions{TLS: issue(t, ca, "pg.example.com", time.Hour)})
	expired := ownPostgres(t, testserver.PostgresOptions{TLS: issue(t, ca, "localhost", -time.Hour)})
	client, stranger := issue(t, ca, "by_certificate", time.Hour), issue(t, other, "by_certificate", time.Hour)
	for name, content := range map[string][]byte{
		"ca.pem": ca.PEM(), "other.pem": other.PEM(), "cert.pem": client.Certificate, "key.pem": client.Key,
		"stranger.pem": stranger.Certificate, "stranger.key": stranger.Key,
	} {
		putFile(t, filepath.Join(dir, name), content)
	}
	url := func(role, host, options string) string {
		password := ""
		if role == "by_password" {
			password = ":" + rolePassword
		}
		return fmt.Sprintf("postgres://%s%s@%s:%d/%s?%s", role, password, host, w.postgres.Port(), w.database, strings.ReplaceAll(options, "DIR", dir))
	}
	for name, c := range map[string]struct{ url, want string }{
		"wrong authority": {url("by_password", "localhost", "sslmode=verify-full&sslrootcert=DIR/other.pem"), `certificate signed by unknown authority; .*give the certificate of its authority as sslrootcert`},
		"expired": {
			fmt.Sprintf("postgres://postgres@localhost:%d/postgres?sslmode=verify-full&sslrootcert=%s/ca.pem", expired.Port(), dir),
			`certificate has expired or is not yet valid.*; the server needs a new certificate`,
		},
		"other name": {
			fmt.Sprintf("postgres://postgres@localhost:%d/postgres?sslmode=verify-full&sslrootcert=%s/ca.pem", elsewhere.Port(), dir),
			`certificate is valid for pg\.example\.com, not localhost; .*connect to one of them`,
		},
		"a stranger's":   {url("by_certificate", "localhost", "sslmode=verify-full&sslrootcert=DIR/ca.pem&sslcert=DIR/stranger.pem&sslkey=DIR/stranger.key"), `connection requires a valid client certificate|unknown certificate authority`},
		"no certificate": {url("by_certificate", "localhost", "sslmode=verify-full&sslrootcert=DIR/ca.pem"), `connection requires a valid client certificate`},
		"without TLS":    {url("by_password", "localhost", "sslmode=disable"), `no encryption|no pg_hba.conf entry`},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := pgamqp(t, "doctor", "--database-url", c.url, "--slot", w.slot)
			if code != exitPrecondition {
				t.Errorf("exit code %d", code)
			}
			wantMatch(t, out, c.want)
		})
	}
	for name, url := range map[string]string{
		"by password, bound to the channel": url("by_password", "localhost", "sslmode=verify-full&channel_binding=require&sslrootcert=DIR/ca.pem"),
		"by certificate":                    url("by_certificate", "localhost", "sslmode=verify-full&sslrootcert=DIR/ca.pem&sslcert=DIR/cert.pem&sslkey=DIR/key.pem"),
	} {
		t.Run(name, func(t *testing.T) {
			d := launch(t, "run", "--database-url", url, "--slot", w.slot, "--listen", "127.0.0.1:0")
			d.waitReady()
			w.exec(`select amqp.publish(1, '', 'q', $1)`, name)
			compare([]string{name}, w.received(1, "q")).wantExact(t)
			if code := d.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
