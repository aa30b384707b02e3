package config

import (
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
	about about
	parse func(c *Config, text string) error
	show  func(c *Config) string // parse understands it; secrets are masked
	check func(c *Config) error  // what can be said of a value without asking a server
	// reloads tells whether a running daemon takes it up on SIGHUP.
	reloads bool
}

// about is what docs/configuration.md says of a setting. All of it must be said.
type about struct {
	takes  string // type and allowed values
	does   string
	change string // when to change it
	with   string // what it interacts with
}

// options is the table of all settings, in the order in which they are shown.
func options() []option {
	return []option{
		value("database_url", "how to reach PostgreSQL: a `URL` or keywords and values; libpq's PG* variables fill in the rest", about{
			takes: "a connection string of libpq: `postgres://user@host:port/database?key=value`, or `host=... dbname=...`; empty for PG* variables alone",
			does: "Names the server, the database and the role. All connections are made with it: the stream, and those that read brokers, " +
				"store dead letters and look at the slot. Where it is shown or logged its passwords are masked; a flag with one is visible in the list of processes, and `run` warns of it. " +
				"A password file and certificates that it names are read anew for each connection, so that they can be replaced.",
			change: "Always, unless PG* variables say it all. Give all hosts of a cluster (`postgres://pgamqp@a,b/shop`) and the daemon works with the one that is the primary.",
			with: "PG* variables fill in what it leaves out; without `connect_timeout` it is 10 s, and the daemon takes 15 s at most, without `application_name` it is `pgamqp`. " +
				"`pg_hba.conf` must have a line for the database's name.",
		}, parsePlain[ConnString], ConnString.String, checkConnString, func(c *Config) *ConnString { return &c.DatabaseURL }),
		text("slot", "`name` of the logical replication slot", about{
			takes: "text of 1 to 63 characters out of a-z, 0-9 and _",
			does: "Names the logical replication slot that the daemon reads, which `pgamqp install` makes. The slot holds the position up to which " +
				"all brokers have confirmed, and the server keeps the WAL behind it.",
			change: "If there is more than one installation in a server: names of slots are shared by all databases of it. Give the same name to `pgamqp install`.",
			with:   "Slots of detached brokers are called `<slot>_broker_<id>`, so with more than 45 bytes no broker can be detached (`detach_after`). It labels metrics.",
		}, checkSlot, func(c *Config) *string { return &c.Slot }),
		text("publication", "`name` of the publication that the slot reads", about{
			takes: "text of 1 to 63 bytes, as PostgreSQL names it",
			does: "Names the publication through which the slot is read. PostgreSQL does not stream without one. Messages of `amqp.publish` need none of its tables; " +
				"`amqp.route_table` adds tables whose rows become messages.",
			change: "If an installation in the same database has the name already.",
			with:   "`pgamqp install` makes it, and must be given the same name. A publication that is missing when a row is changed stops the slot: exit code 7.",
		}, checkPublication, func(c *Config) *string { return &c.Publication }),
		text("listen", "`address` of the HTTP server for /metrics, /healthz and /readyz", about{
			takes: "text: host and port, or a port alone for all addresses (`:9465`); port 0 takes any that is free",
			does: "Is where the daemon serves metrics, health and the status page. There is no way to switch it off. " +
				"`pgamqp status` and `pgamqp doctor` ask the daemon there.",
			change: "To let Prometheus or Kubernetes on another machine in, or to run a second daemon on this one.",
			with:   "Nothing there is protected by a login unless `web_config` says so: beyond the loopback interface use it, or a proxy or a firewall. Alerts expect each daemon to be scraped.",
		}, checkListen, func(c *Config) *string { return &c.Listen }),
		text("web_config", "`file` that turns on TLS and logins for the HTTP server, in the form that Prometheus' exporters have", about{
			takes: "the path of a file in YAML, with `tls_server_config`, `basic_auth_users` (bcrypt) and the rest of what Prometheus calls a web configuration; empty for neither",
			does: "Protects metrics, health and the status page. The file and the certificates that it names are read anew for each connection and each login, so that they can be replaced. " +
				"A mistake in it ends the start.",
			change: "Wherever `listen` is not on the loopback interface.",
			with:   "`daemon_url` for `pgamqp status`, `doctor` and `health`; Prometheus' `scheme`, `tls_config` and `basic_auth`; the probes of Kubernetes, which take HTTPS, and a login as a header.",
		}, nothing[string], func(c *Config) *string { return &c.WebConfig }),
		value("daemon_url", "`URL` at which status, doctor and health ask the daemon, if not http:// and listen, for example https://user:password@db.example.com:9465", about{
			takes: "a URL of http or https, with user and password if need be; empty for http and `listen`",
			does:  "Is for commands; the daemon itself does not use it. Where it is shown its password is masked.",
			change: "With `web_config`, or to ask a daemon on another machine. Give it in the environment if it holds a password: arguments are seen in the list of processes. " +
				"A private authority is trusted by `SSL_CERT_FILE` in the environment.",
			with: "`web_config`, `listen`.",
		}, parsePlain[SecretURL], SecretURL.String, checkDaemonURL, func(c *Config) *SecretURL { return &c.DaemonURL }),
		value("window_messages", "`number` of messages that a broker may leave unconfirmed before its lane waits", about{
			takes: "a whole number of messages, 1 to 65536",
			does: "Bounds how many messages are with a broker and not confirmed yet. When so many are under way, reading waits for it. " +
				"It is also the most that may come twice after a failure of the connection.",
			change: "Higher where the way to the broker is long: the rate cannot be more than the window divided by the time to a confirm. Lower to bound duplicates.",
			with:   "`window_bytes`: whichever is reached first counts. Each broker has a window of its own.",
		}, parseCount, showCount, within(1, 65_536, showCount), func(c *Config) *int { return &c.WindowMessages }),
		// A window that cannot hold a few ordinary messages would publish them one by one.
		value("window_bytes", "the same bound as a `size` in memory, for example 32MiB", about{
			takes:  "a size in bytes, 64KiB to 64GiB: a whole number and a unit out of B, KiB, MiB, GiB, kB, MB, GB; without a unit bytes",
			does:   "Bounds the memory of the messages that are with a broker and not confirmed yet, headers included. A single message that is larger passes alone.",
			change: "Higher for large messages: it should hold some of them. Lower where memory is scarce and brokers are many.",
			with: "Once the windows hold 8 MiB the runtime is told to do with 12 MiB and four times this for each broker, before with 24 MiB, unless `GOMEMLIMIT` is in the environment; " +
				"the process takes about 28 MiB more. `window_messages` is the other bound.",
		}, parseBytes, showBytes, within(64<<10, 64<<30, showBytes), func(c *Config) *int64 { return &c.WindowBytes }),
		duration("shutdown_timeout", "longest `time` that a stop waits for confirms of what was sent", about{
			takes: "a time, 1s to 1h",
			does: "Bounds what the daemon does after SIGTERM: it stops reading, waits for confirms and reports them to PostgreSQL. What is not confirmed by then is " +
				"published by the next start, again under the same `message_id`. The exit code is 0 either way.",
			change: "Higher if brokers need longer for what is in a window, and a stop shall repeat nothing.",
			with: "The supervisor must wait for longer: `TimeoutStopSec` of the unit, `terminationGracePeriodSeconds` in Kubernetes (30 s by default). " +
				"Connections that do not close by themselves take some seconds more.",
		}, within(time.Second, time.Hour, showDuration), func(c *Config) *time.Duration { return &c.ShutdownTimeout }),
		duration("nack_retry_timeout", "`time` for which a message that the broker nacks is sent again before on_reject of the broker applies; 0s means at once", about{
			takes: "a time, 0s to 24h",
			does: "Is for messages that a broker could not store: a full queue with `reject-publish`, a quorum queue without a majority. Such a message is sent again, in order and ever " +
				"more slowly, up to every 5 s. After this time `on_reject` decides: dead letter, hold or drop.",
			change: "Higher if queues are full for longer at times and nothing shall become a dead letter for it; all behind the message waits meanwhile.",
			with:   "Column `retry_timeout` of `amqp.broker`, which counts for its broker instead of this; column `on_reject`; `detach_after`.",
		}, within(0, 24*time.Hour, showDuration), func(c *Config) *time.Duration { return &c.NackRetryTimeout }),
		duration("detach_after", "`time` for which a broker that takes no messages may hold up the others before it gets a slot of its own; 0s means for ever", about{
			takes: "a time, 1s to 24h, or 0s for never",
			does: "One slot serves all brokers, so one that takes nothing holds up all others. After this time it is detached: it gets a copy of the slot, reads what it " +
				"has missed from there, and joins the others when it has caught up. A broker whose window is full and that is not connected is detached after a second.",
			change: "Higher if brokers pause for longer in ordinary operation. `0s` where no slot is to spare.",
			with: "`max_replication_slots` and `max_wal_senders` need room for one more for each broker; `slot` must have at most 45 bytes, and broker ids must not be negative. " +
				"With one broker it does nothing.",
		}, checkDetachAfter, func(c *Config) *time.Duration { return &c.DetachAfter }),
		duration("heartbeat_interval", "`time` between two heartbeats through the whole path", about{
			takes: "a time, 1s to 1h",
			does: "So often the daemon writes a small message into the WAL that no broker gets, and measures when all before it is confirmed. " +
				"That proves that the path works when nothing is published.",
			change: "Higher to write less WAL into a database that is idle.",
			with:   "`pgamqp_last_heartbeat_timestamp_seconds` and the alert on it, whose threshold should be five times this; a heartbeat that does not come through within the interval is a warning in the log.",
		}, within(time.Second, time.Hour, showDuration), func(c *Config) *time.Duration { return &c.HeartbeatInterval }),
		value("log_level", "lowest `level` that is logged: debug, info, warn or error", about{
			takes: "`debug`, `info`, `warn` or `error`, in upper or lower case",
			does: "Leaves out of the log what is less grave. `info` has a line for what changes, `debug` for each heartbeat, each report of a position and the like. " +
				"Bodies of messages and passwords are in none.",
			change: "To `debug` while you look for something: `systemctl reload pgamqp`, or SIGHUP, is enough.",
			with:   "Log files of the supervisor: the log goes to standard error.",
		}, parseLevel, showLevel, nothing[slog.Level], func(c *Config) *slog.Level { return &c.LogLevel }).reloaded(),
		value("log_format", "`form` of a log line: text or json", about{
			takes:  "`text` or `json`, in upper or lower case",
			does:   "Is the form of a line: `key=value` pairs, or an object of JSON. Both have the same fields.",
			change: "To `json` if something collects and searches the log.",
			with:   "`log_level`.",
		}, parseFormat, showPlain[LogFormat], nothing[LogFormat], func(c *Config) *LogFormat { return &c.LogFormat }),
		value("pg_headers", "`list` of headers about a message's origin to add, out of lsn, xid, commit_time and role; each becomes x-pg-lsn and so on", about{
			takes: "a list out of `lsn`, `xid`, `commit_time` and `role`, each once: with commas between them, in the file also as a list of YAML; empty for none",
			does: "Adds headers to each message: `x-pg-lsn`, where it stands in the WAL; `x-pg-xid`, the transaction; `x-pg-commit-time`; `x-pg-role`, " +
				"the role that logged in and called `amqp.publish`.",
			change: "If consumers want to order by position, to group by transaction, or to know who has sent a message.",
			with:   "Headers cost the broker more than bodies do. A header of the same name that the message has itself is replaced.",
		}, parseHeaders, showHeaders, nothing[[]PGHeader], func(c *Config) *[]PGHeader { return &c.PGHeaders }),
		text("secrets_dir", "`folder` of the files that amqp.broker may refer to by file:NAME, for example /etc/pgamqp/secrets", about{
			takes: "the whole path of a folder; empty for none",
			does: "Lets the columns `password`, `tls_ca`, `tls_cert` and `tls_key` of `amqp.broker` refer to files in it, `file:rabbit`, so that no secret stands in the database. " +
				"They are read with the definitions, every 15 s at the latest, so a file can be replaced while the daemon runs.",
			change: "If passwords and keys are to be files: of a Secret in Kubernetes, of systemd's `LoadCredential`, of whatever distributes yours.",
			with:   "Files elsewhere cannot be referred to, and of the environment only variables that begin with `PGAMQP_SECRET_`. `pgamqp doctor` needs the same.",
		}, checkSecretsDir, func(c *Config) *string { return &c.SecretsDir }),
		text("otlp_endpoint", "`URL` of a collector of OpenTelemetry (OTLP over HTTP) that is told of each message with a sampled traceparent, for example http://127.0.0.1:4318", about{
			takes: "a URL of http or https without user and password; empty for none. The path is /v1/traces if it has none",
			does: "Sends a span for each message whose header `traceparent` says that its trace is sampled: from the commit to the confirm, an error if it became a dead letter. " +
				"At most 2048 spans wait; a collector that is slow or away loses some and delays nothing.",
			change: "If traces of your applications are collected and the way of a message shall be a part of them.",
			with:   "The variables of OpenTelemetry hold: `OTEL_EXPORTER_OTLP_HEADERS` for what the collector wants, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_MAX_QUEUE_SIZE`.",
		}, checkOTLP, func(c *Config) *string { return &c.OTLPEndpoint }),
	}
}

// value makes an option out of a parser, its inverse, a check and the field that it fills.
func value[T any](name, doc string, about about, parse func(string) (T, error), show func(T) string,
	check func(T) error, field func(*Config) *T,
) option {
	return option{
		name: name, doc: doc, about: about,
		parse: func(c *Config, text string) error {
			v, err := parse(text)
			if err == nil {
				*field(c) = v
			}
			return err
		},
		show:  func(c *Config) string { return show(*field(c)) },
		check: func(c *Config) error { return check(*field(c)) },
	}
}

func text(name, doc string, about about, check func(string) error, field func(*Config) *string) option {
	return value(name, doc, about, parsePlain[string], showPlain[string], check, field)
}

func duration(name, doc string, about about, check func(time.Duration) error, field func(*Config) *time.Duration) option {
	return value(name, doc, about, parseDuration, showDuration, check, field)
}

// reloaded marks an option that a running daemon takes up.
func (o option) reloaded() option {
	o.reloads = true
	return o
}

// Option describes a setting to those who offer it: flags, documentation.
type Option struct {
	Name    string // key in the file
	Env     string // environment variable
	Flag    string // without the two hyphens
	Doc     string // one sentence without a full stop; a word in backquotes names the value
	Default string
	Reloads bool // a running daemon takes it up on SIGHUP
}

// Options returns all settings, in the order in which they are shown.
func Options() []Option {
	defaults := Default()
	described := make([]Option, 0, len(options()))
	for _, o := range options() {
		described = append(described, Option{
			Name: o.name, Env: o.env(), Flag: o.flag(), Doc: o.doc, Default: o.show(&defaults), Reloads: o.reloads,
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
