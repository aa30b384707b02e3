package publisher

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
)

// TLS says how to secure a connection to a broker, in PEM texts. It is comparable, so that a
// certificate that was replaced is a change of its host.
type TLS struct {
	On bool
	// CA is who must have signed the broker's certificate; empty: whoever the system trusts.
	CA string
	// Certificate and Key are what we show to a broker that asks for it.
	Certificate, Key string
	// ServerName is the name that the broker's certificate must hold; empty: that of the host.
	ServerName string
}

// config is for a host of this name. Version 1.2 is the least, name and chain are verified always.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls_ca holds no certificate in PEM form")
		}
	}
	if t.Certificate == "" && t.Key == "" {
		return c, nil
	}
	pair, err := tls.X509KeyPair([]byte(t.Certificate), []byte(t.Key))
	if err != nil {
		return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
	}
	// Given whoever the broker says that it trusts: that it refuses us is a clearer answer.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return c, nil
}

// explainTLS adds what to do to an error of the handshake.
func explainTLS(err error) error {
	var fix string
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		fix = "the broker's certificate is signed by nobody we trust: give the certificate of its authority in amqp.broker.tls_ca"
	case errors.As(err, &name):
		fix = "the broker's certificate is for other names: connect to one of them, or give it in amqp.broker.tls_server_name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		fix = "the broker needs a new certificate, or one of the clocks is wrong"
	case strings.Contains(err.Error(), "protocol version"): // the library has no type for it, be it ours or theirs to say so
		fix = "the broker speaks no TLS of version 1.2 or newer: allow it there (ssl_options.versions)"
	case isAlert(err):
		fix = "the broker has refused the handshake: see its log, and amqp.broker.tls_cert, which it may want, or may not trust"
	case errors.As(err, &record):
		fix = "the port does not speak TLS: RabbitMQ does on 5671 by default"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, fix)
}

// isAlert tells whether the other side has ended TLS with a reason.
func isAlert(err error) bool {
	said, ok := errors.AsType[*net.OpError](err)
	return ok && said.Op == "remote error"
}

// readErrorConn remembers why reading has ended. That a broker does not take our certificate comes behind the handshake, in
// TLS 1.3, and the library tells of it in one of several ways.
type readErrorConn struct {
	net.Conn
	failure atomic.Pointer[error]
}

// Read is for the library's reader.
func (c *readErrorConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

// explain returns what the broker has said of TLS, if that is why there was an error.
func (c *readErrorConn) explain(err error) error {
	if read := c.failure.Load(); err != nil && read != nil {
		if isAlert(*read) {
			return *read
		}
	}
	return err
}
