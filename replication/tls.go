package replication

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// ExplainTLS adds what to do to an error of connecting to PostgreSQL over TLS, and returns every other one as it is.
func ExplainTLS(err error) error {
	var fix string
	name, otherName := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	said, isSaid := errors.AsType[*net.OpError](err)
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		fix = "the server's certificate is signed by nobody we trust: give the certificate of its authority as sslrootcert in database_url"
	case otherName:
		fix = fmt.Sprintf("the server's certificate is for other names than %s: connect to one of them", name.Host)
	case isInvalid && invalid.Reason == x509.Expired:
		fix = "the server needs a new certificate (ssl_cert_file, then a reload), or one of the clocks is wrong"
	case isSaid && said.Op == "remote error":
		fix = "the server has refused the handshake: see its log, and sslcert and sslkey in database_url, which it may want, or may not trust any more"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, fix)
}
