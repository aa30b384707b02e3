package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// certificate is one for the private servers, signed by itself.
type certificate struct {
	certificate, key      []byte // PEM
	folder, file, keyFile string
}

func newCertificate() (*certificate, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	c := &certificate{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	return c, c.write()
}

// write puts both where PostgreSQL can read them, and nobody else the key.
func (c *certificate) write() (err error) {
	if c.folder, err = os.MkdirTemp("", "pgamqp-bench-"); err != nil {
		return err
	}
	c.file, c.keyFile = filepath.Join(c.folder, "server.crt"), filepath.Join(c.folder, "server.key")
	if err := os.WriteFile(c.file, c.certificate, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(c.keyFile, c.key, 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	// The servers do not run as root.
	account, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("find the user of the servers: %w", err)
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return err
	}
	for _, path := range []string{c.folder, c.file, c.keyFile} {
		if err := os.Chown(path, uid, 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *certificate) remove() error { return os.RemoveAll(c.folder) }
