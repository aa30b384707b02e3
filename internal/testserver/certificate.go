package testserver

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
	"time"
)

// TLS holds the PEM texts for a server that offers TLS.
type TLS struct {
	Certificate, Key []byte

	// ClientCA, if set, is who signs certificates of clients. RabbitMQ demands one then,
	// PostgreSQL where pg_hba.conf says so.
	ClientCA []byte
}

// SelfSigned makes a certificate for localhost and 127.0.0.1, which signs itself and holds
// for a week.
func SelfSigned() (*TLS, error) {
	a, err := NewAuthority("localhost")
	if err != nil {
		return nil, err
	}
	return &a.own, nil
}

// Authority signs certificates.
type Authority struct {
	own         TLS
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority, whose own certificate serves for localhost and 127.0.0.1, too.
func NewAuthority(name string) (*Authority, error) {
	a := &Authority{}
	return a, a.sign(&a.own, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(7 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	})
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() []byte { return a.own.Certificate }

// Issue makes a certificate for a server or a client of this name and address, which holds
// until a time.
func (a *Authority) Issue(name string, address net.IP, until time.Time) (*TLS, error) {
	t := new(TLS)
	return t, a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{address}, NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// sign makes key and certificate; the authority's own if it has none yet.
func (a *Authority) sign(t *TLS, template *x509.Certificate) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return fmt.Errorf("make serial number: %w", err)
	}
	if a.key == nil {
		a.certificate, a.key = template, private
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	t.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	t.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return nil
}
