package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxName is the longest name of an object in PostgreSQL, in bytes.
const maxName = 63

// mistake is a value that could be read and makes no sense.
type mistake struct {
	name string
	err  error
}

// Validate checks what can be checked without asking a server, and reports all mistakes at once.
func (c Config) Validate() error {
	var errs []error
	for _, m := range c.mistakes() {
		errs = append(errs, fmt.Errorf("%s: %w", m.name, m.err))
	}
	return errors.Join(errs...)
}

func (c Config) mistakes() []mistake {
	var found []mistake
	for _, o := range options() {
		if err := o.check(&c); err != nil {
			found = append(found, mistake{o.name, err})
		}
	}
	return found
}

// within makes a check out of bounds.
func within[T cmp.Ordered](low, high T, show func(T) string) func(T) error {
	return func(v T) error {
		if v < low || v > high {
			return fmt.Errorf("%s is out of bounds: write %s to %s", show(v), show(low), show(high))
		}
		return nil
	}
}

// nothing is the check of what cannot be wrong once it is read.
func nothing[T any](T) error { return nil }

func checkDetachAfter(d time.Duration) error {
	if d == 0 {
		return nil
	}
	return within(time.Second, 24*time.Hour, showDuration)(d)
}

func checkConnString(c ConnString) error {
	s := string(c)
	switch {
	case s == "" || isURL(s) || strings.Contains(s, "="):
		return nil
	case strings.Contains(s, "://"):
		scheme, _, _ := strings.Cut(s, "://")
		return fmt.Errorf("a URL that begins with %s:// is not PostgreSQL's: write postgres://user@host/database", scheme)
	default:
		return errors.New("it is no connection string: write postgres://user@host/database or host=db dbname=shop")
	}
}

// checkSlot keeps what PostgreSQL allows. It matters beyond the better error: the name goes into a replication
// command without quotes.
func checkSlot(name string) error {
	bad := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") // anything else stops Trim
	if bad == "" && name != "" && len(name) <= maxName {
		return nil
	}
	return fmt.Errorf("%q cannot name a slot: write 1 to %d characters out of a-z, 0-9 and _", name, maxName)
}

func checkPublication(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty: write the name of a publication")
	case len(name) > maxName:
		return fmt.Errorf("%q is too long to name a publication: write at most %d bytes", name, maxName)
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("%q cannot name a publication: remove the zero byte", name)
	}
	return nil
}

func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address: write host:port, such as 127.0.0.1:9465, or :9465 for all addresses", address)
	}
	return nil
}

func checkOTLP(address string) error {
	u, err := url.Parse(address)
	switch {
	case address == "":
		return nil
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is no address of a collector: write http://host:4318 or https://host:4318; OTLP over gRPC (port 4317) is not spoken", address)
	case u.User != nil:
		return errors.New("it holds a password, and settings are shown: put what the collector wants into the environment variable OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

func checkSecretsDir(dir string) error {
	if dir != "" && !filepath.IsAbs(dir) {
		return fmt.Errorf("%q is relative: write the whole path of a folder, such as /etc/pgamqp/secrets", dir)
	}
	return nil
}

func checkDaemonURL(address SecretURL) error {
	u, err := url.Parse(string(address))
	if address != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return errors.New("it is no address of a daemon: write http://host:9465 or https://user:password@host:9465")
	}
	return nil
}
