package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestStreamWorksOverTLS covers what TLS could break: reads are interrupted by
// deadlines, in the middle of records too.
func TestStreamWorksOverTLS(t *testing.T) {
	certificate, key := selfSigned(t)
	postgres, err := testserver.StartPostgres(testserver.PostgresOptions{Settings: map[string]string{
		"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Close() })
	w := newWorld(t, worldOptions{postgres: postgres})
	w.queue(1, "q")
	url := strings.Replace(w.url(), "sslmode=disable", "sslmode=require", 1)
	d := launch(t, "run", "--database-url", url, "--slot", w.slot, "--listen", "127.0.0.1:0")
	d.waitReady()
	if n := value[int](w, `select count(*)::int from pg_stat_ssl s join pg_stat_replication r using (pid) where s.ssl`); n != 1 {
		t.Fatalf("%d streams over TLS, want 1", n)
	}
	const rounds, each = 20, 200
	for i := range rounds {
		w.exec(`select count(amqp.publish(1, '', 'q', repeat(chr(97 + $1), 300 * i))) from generate_series(1, $2) i`, i, each)
	}
	w.waitDelivered()
	got := w.consume(1, "q").next(rounds * each)
	for n, m := range got {
		if want := 300 * (n%each + 1); len(m.Body) != want || m.Body[0] != byte('a'+n/each) {
			t.Fatalf("message %d has %d bytes and begins with %q, want %d and %q", n, len(m.Body), m.Body[0], want, byte('a'+n/each))
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// selfSigned writes a certificate and its key where PostgreSQL may read them.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "pgamqp-tls-") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	certificate, key = filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: der},
		key:         {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := giveToPostgres(folder, certificate, key); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// giveToPostgres lets the user that servers run as read files, when that is not us.
func giveToPostgres(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return fmt.Errorf("find the user of the servers: %w", err)
		}
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := os.Chown(p, uid, 0); err != nil {
			return err
		}
	}
	return nil
}
