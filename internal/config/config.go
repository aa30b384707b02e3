// Package config holds the settings of the daemon's process: where the database is, how much memory a broker's lane
// may use, how long things may take. Brokers are not among them; they are rows of amqp.broker.
//
// Each setting is declared once, in options.go. From that one line come its key in the YAML file, its environment
// variable, its flag, the output of `pgamqp config`, the README's table and docs/configuration.md. Values rise in precedence from the
// default over the file and the environment to the flag.
//
// The package opens nothing but the file it is told to read, and knows nothing of the packages it configures.
package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Config is a complete set of settings. Make one with [Load] or [Default]. It may be copied and logged: [ConnString]
// hides its password wherever it is printed.
type Config struct {
	// DatabaseURL says how to reach PostgreSQL, as a URL or as keywords and values. What it leaves out comes from
	// libpq's PG* variables, its service file and its password file.
	DatabaseURL ConnString
	// Slot is the name of the logical replication slot.
	Slot string
	// Publication is the name of the publication that the slot reads.
	Publication string
	// Listen is the address of the HTTP server for metrics and health.
	Listen string
	// WebConfig is a file that turns on TLS and logins for the HTTP server; empty is neither.
	WebConfig string
	// DaemonURL is where commands ask the daemon; empty is http:// and Listen.
	DaemonURL SecretURL
	// WindowMessages is how many messages a broker may leave unconfirmed before its lane waits.
	WindowMessages int
	// WindowBytes is the same bound in bytes of memory.
	WindowBytes int64
	// ShutdownTimeout is how long a stop waits for confirms of what was sent.
	ShutdownTimeout time.Duration
	// NackRetryTimeout is how long a message that the broker refuses to store is tried again before it becomes a
	// dead letter.
	NackRetryTimeout time.Duration
	// DetachAfter is how long a broker that takes no messages may hold up the others before it gets a slot of its own;
	// 0 is for ever.
	DetachAfter time.Duration
	// HeartbeatInterval is the time between two heartbeats through the whole path.
	HeartbeatInterval time.Duration
	// LogLevel is the lowest level that is logged.
	LogLevel slog.Level
	// LogFormat is the form of a log line.
	LogFormat LogFormat
	// SecretsDir is the folder of the files that amqp.broker refers to; none if empty.
	SecretsDir string
	// OTLPEndpoint is the URL of a collector of OpenTelemetry that gets a span for each message with a trace; none if
	// empty.
	OTLPEndpoint string
	// PGHeaders are the x-pg-* headers to add to each message.
	PGHeaders []PGHeader
}

// SecretURL is a URL that may hold a password.
type SecretURL string

// String returns the URL with its password masked.
func (u SecretURL) String() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return mask
	}
	return parsed.Redacted()
}

// DaemonAddress is where commands ask the daemon: a URL, or an address for HTTP.
func (c Config) DaemonAddress() string {
	if c.DaemonURL != "" {
		return string(c.DaemonURL)
	}
	return c.Listen
}

// LogFormat is the form of a log line.
type LogFormat string

// The forms of a log line.
const (
	LogText LogFormat = "text" // key=value
	LogJSON LogFormat = "json"
)

// PGHeader names one header about a message's origin; the header is x-pg- and the name, with - for _.
type PGHeader string

// The headers about a message's origin.
const (
	HeaderLSN        PGHeader = "lsn"         // x-pg-lsn: position of the message in the WAL
	HeaderXID        PGHeader = "xid"         // x-pg-xid: transaction id
	HeaderCommitTime PGHeader = "commit_time" // x-pg-commit-time: when the transaction committed
	HeaderRole       PGHeader = "role"        // x-pg-role: session_user of the caller
)

// Default returns the settings of a daemon that was told nothing.
func Default() Config {
	return Config{
		Slot:              "pgamqp",
		Publication:       "pgamqp",
		Listen:            "127.0.0.1:9465",
		WindowMessages:    2048,
		WindowBytes:       32 << 20,
		ShutdownTimeout:   25 * time.Second,
		NackRetryTimeout:  30 * time.Second,
		DetachAfter:       10 * time.Second,
		HeartbeatInterval: 10 * time.Second,
		LogLevel:          slog.LevelInfo,
		LogFormat:         LogText,
	}
}

// Differences returns the names of the settings that differ, in the order in which they are shown.
func Differences(a, b Config) []string {
	var names []string
	for _, o := range options() {
		if o.show(&a) != o.show(&b) || o.name == "database_url" && a.DatabaseURL != b.DatabaseURL { // shown without its password
			names = append(names, o.name)
		}
	}
	return names
}

// LogValue implements [slog.LogValuer]: all settings, without secrets.
func (c Config) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, len(options()))
	for _, o := range options() {
		attrs = append(attrs, slog.String(o.name, o.show(&c)))
	}
	return slog.GroupValue(attrs...)
}

// String returns the same as LogValue in one line.
func (c Config) String() string {
	parts := make([]string, 0, len(options()))
	for _, o := range options() {
		parts = append(parts, fmt.Sprintf("%s=%q", o.name, o.show(&c)))
	}
	return strings.Join(parts, " ")
}
