package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// option is one setting. All its names are made from one: window_bytes in the file, PGAMQP_WINDOW_BYTES in the
// environment, --window-bytes as a flag.
type option struct {
	name  string
	doc   string // one sentence without a full stop; a word in backquotes names the value in the flag's help
	parse func(c *Config, text string) error
	show  func(c *Config) string // parse understands it; secrets are masked
}

// options is the table of all settings, in the order in which they are shown.
func options() []option {
	return []option{
		{
			"database_url", "how to reach PostgreSQL: a `URL` or keywords and values; libpq's PG* variables fill in the rest",
			func(c *Config, s string) error { c.DatabaseURL = ConnString(s); return nil },
			func(c *Config) string { return c.DatabaseURL.String() },
		},
		text("slot", "`name` of the logical replication slot", func(c *Config) *string { return &c.Slot }),
		text("publication", "`name` of the publication that the slot reads", func(c *Config) *string { return &c.Publication }),
		text("listen", "`address` of the HTTP server for /metrics, /healthz and /readyz", func(c *Config) *string { return &c.Listen }),
		value("window_messages", "`number` of messages that a broker may leave unconfirmed before its lane waits",
			parseCount, showCount, func(c *Config) *int { return &c.WindowMessages }),
		value("window_bytes", "the same bound as a `size` in memory, for example 32MiB",
			parseBytes, showBytes, func(c *Config) *int64 { return &c.WindowBytes }),
		duration("shutdown_timeout", "longest `time` that a stop waits for confirms of what was sent",
			func(c *Config) *time.Duration { return &c.ShutdownTimeout }),
		duration("nack_retry_timeout", "`time` for which a message that the broker nacks is sent again before on_reject of the broker applies; 0s means at once",
			func(c *Config) *time.Duration { return &c.NackRetryTimeout }),
		duration("detach_after", "`time` for which a broker that takes no messages may hold up the others before it gets a slot of its own; 0s means for ever",
			func(c *Config) *time.Duration { return &c.DetachAfter }),
		duration("heartbeat_interval", "`time` between two heartbeats through the whole path",
			func(c *Config) *time.Duration { return &c.HeartbeatInterval }),
		value("log_level", "lowest `level` that is logged: debug, info, warn or error",
			parseLevel, showLevel, func(c *Config) *slog.Level { return &c.LogLevel }),
		value("log_format", "`form` of a log line: text or json",
			parseFormat, showPlain[LogFormat], func(c *Config) *LogFormat { return &c.LogFormat }),
		value("pg_headers", "`list` of headers about a message's origin to add, out of lsn, xid, commit_time and role; each becomes x-pg-lsn and so on",
			parseHeaders, showHeaders, func(c *Config) *[]PGHeader { return &c.PGHeaders }),
		text("secrets_dir", "`folder` of the files that amqp.broker may refer to by file:NAME, for example /etc/pgamqp/secrets",
			func(c *Config) *string { return &c.SecretsDir }),
		text("otlp_endpoint", "`URL` of a collector of OpenTelemetry (OTLP over HTTP) that is told of each message with a sampled traceparent, for example http://127.0.0.1:4318",
			func(c *Config) *string { return &c.OTLPEndpoint }),
	}
}

// value makes an option out of a parser, its inverse and the field that it fills.
func value[T any](name, doc string, parse func(string) (T, error), show func(T) string, field func(*Config) *T) option {
	return option{
		name: name, doc: doc,
		parse: func(c *Config, text string) error {
			v, err := parse(text)
			if err == nil {
				*field(c) = v
			}
			return err
		},
		show: func(c *Config) string { return show(*field(c)) },
	}
}

func text(name, doc string, field func(*Config) *string) option {
	return value(name, doc, func(s string) (string, error) { return s, nil }, showPlain[string], field)
}

func duration(name, doc string, field func(*Config) *time.Duration) option {
	return value(name, doc, parseDuration, showDuration, field)
}

// Option describes a setting to those who offer it: flags, documentation.
type Option struct {
	Name    string // key in the file
	Env     string // environment variable
	Flag    string // without the two hyphens
	Doc     string // one sentence without a full stop; a word in backquotes names the value
	Default string
}

// Options returns all settings, in the order in which they are shown.
func Options() []Option {
	defaults := Default()
	described := make([]Option, 0, len(options()))
	for _, o := range options() {
		described = append(described, Option{
			Name: o.name, Env: o.env(), Flag: o.flag(), Doc: o.doc, Default: o.show(&defaults),
		})
	}
	return described
}

func (o option) env() string  { return envPrefix + strings.ToUpper(o.name) }
func (o option) flag() string { return strings.ReplaceAll(o.name, "_", "-") }

func findOption(name string) (option, bool) {
	all := options()
	i := slices.IndexFunc(all, func(o option) bool { return o.name == name })
	if i < 0 {
		return option{}, false
	}
	return all[i], true
}

// Table returns the settings as a table in Markdown, for the README.
func Table() string {
	var b strings.Builder
	b.WriteString("| File | Environment | Flag | Default | Meaning |\n|---|---|---|---|---|\n")
	for _, o := range Options() {
		byDefault := ""
		if o.Default != "" {
			byDefault = "`" + o.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | `--%s` | %s | %s |\n",
			o.Name, o.Env, o.Flag, byDefault, strings.ReplaceAll(o.Doc, "`", ""))
	}
	return b.String()
}

// Sample returns a configuration file in which every setting stands as a comment, with its default.
func Sample() string {
	var b strings.Builder
	b.WriteString("# Settings of the daemon; `pgamqp config` shows what is in effect. Remove the # in front of what you change, and run\n" +
		"# `systemctl restart pgamqp`. Brokers are rows of the table amqp.broker.\n")
	for _, o := range Options() {
		fmt.Fprintf(&b, "\n# %s\n#%s: %q\n", strings.ReplaceAll(o.Doc, "`", ""), o.Name, o.Default)
	}
	return b.String()
}
