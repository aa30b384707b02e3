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
	check := func(name string, err error) {
		if err != nil {
			found = append(found, mistake{name, err})
		}
	}
	check("database_url", checkConnString(c.DatabaseURL))
	check("slot", checkSlot(c.Slot))
	check("publication", checkPublication(c.Publication))
	check("listen", checkListen(c.Listen))
	check("window_messages", within(c.WindowMessages, 1, 65_536, showCount))
	// A window that cannot hold a few ordinary messages would publish them one by one.
	check("window_bytes", within(c.WindowBytes, 64<<10, 64<<30, showBytes))
	check("shutdown_timeout", within(c.ShutdownTimeout, time.Second, time.Hour, showDuration))
	check("nack_retry_timeout", within(c.NackRetryTimeout, 0, 24*time.Hour, showDuration))
	if c.DetachAfter != 0 {
		check("detach_after", within(c.DetachAfter, time.Second, 24*time.Hour, showDuration))
	}
	check("heartbeat_interval", within(c.HeartbeatInterval, time.Second, time.Hour, showDuration))
	if c.SecretsDir != "" && !filepath.IsAbs(c.SecretsDir) {
		check("secrets_dir", fmt.Errorf("%q is relative: write the whole path of a folder, such as /etc/pgamqp/secrets", c.SecretsDir))
	}
	check("otlp_endpoint", checkOTLP(c.OTLPEndpoint))
	return found
}

func within[T cmp.Ordered](v, low, high T, show func(T) string) error {
	if v < low || v > high {
		return fmt.Errorf("%s is out of bounds: write %s to %s", show(v), show(low), show(high))
	}
	return nil
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
