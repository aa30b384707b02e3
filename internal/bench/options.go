package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options says what is measured, where, and how large.
type Options struct {
	// Program is the path of pgamqp itself, and Version what it calls itself.
	Program, Version string
	// Other is the path of another pgamqp, whose delivery is measured beside; empty for none.
	Other string
	// DatabaseURL and BrokerURL name the servers. Without both, private ones are started.
	DatabaseURL, BrokerURL string
	// BrokerPID is the process of a broker on this machine, for its CPU time; 0 if not known.
	// That of a private one is known.
	BrokerPID int
	// PostgresVersion and RabbitMQVersion choose private servers; 0 is what the machine has.
	PostgresVersion, RabbitMQVersion int

	Sections []string
	// Cases are parts of the names of cases; others are left out, but for what they are compared with.
	Cases []string
	// Runs is how often each case is measured.
	Runs int
	// Messages is the size of a backlog; Body that of a message in bytes.
	Messages, Body int
	// Transactions lists messages a transaction; 0 is one transaction with all of them.
	Transactions []int
	// Queues lists types: classic, quorum, stream.
	Queues []string
	// Rates lists messages a second at which latency is measured, each for Time.
	Rates []int
	Time  time.Duration
	// AllProperties gives each message every property and two headers.
	AllProperties bool
	// TLS is used to both servers; for private ones only.
	TLS bool
	// Socket reads from PostgreSQL by its Unix socket; for private servers only.
	Socket bool
	// Window is what the daemon and the limits may leave unconfirmed; 0 is the daemon's default.
	Window int
	// Environment is given to the daemon, as NAME=value.
	Environment []string

	// Out gets the tables, JSON and Plot the same as JSON, and as SVG, if they are not nil.
	Out, JSON, Plot io.Writer
	// Markdown makes the tables Markdown.
	Markdown bool
	Progress Progress
}

// SectionNames lists what can be measured, in the order in which it is.
func SectionNames() []string {
	return []string{"delivery", "reading", "latency", "sql", "tps", "flat", "memory", "sweep", "rows"}
}

// DefaultSections are those that answer the usual questions.
func DefaultSections() []string { return []string{"delivery", "reading", "latency", "sql", "tps"} }

// queueTypes lists what x-queue-type may say.
func queueTypes() []string { return []string{"classic", "quorum", "stream"} }

// wants tells whether a case is one of those that were asked for.
func (o *Options) wants(name string) bool {
	return slices.ContainsFunc(o.Cases, func(part string) bool { return strings.Contains(name, part) })
}

func (o *Options) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, s := range o.Sections {
		if !slices.Contains(SectionNames(), s) {
			fail("there is no section %q; there are %s", s, strings.Join(SectionNames(), ", "))
		}
	}
	for _, q := range o.Queues {
		if !slices.Contains(queueTypes(), q) {
			fail("there is no queue type %q; there are %s", q, strings.Join(queueTypes(), ", "))
		}
	}
	for _, n := range o.Transactions {
		if n < 0 {
			fail("a transaction of %d messages is not possible", n)
		}
	}
	for _, n := range o.Rates {
		if n < 1 {
			fail("a rate of %d messages a second is not possible", n)
		}
	}
	if o.Runs < 1 || o.Messages < 1 || o.Time <= 0 {
		fail("runs, messages and time must be more than nothing")
	}
	if o.Body < 0 {
		fail("a body of %d bytes is not possible", o.Body)
	}
	if (o.DatabaseURL == "") != (o.BrokerURL == "") {
		fail("give both --database-url and --broker-url, or none of them for private servers")
	}
	if o.Plot != nil && !slices.Contains(o.Sections, "sweep") {
		fail("--plot shows section sweep, which is not asked for")
	}
	if o.DatabaseURL != "" && (o.TLS || o.Socket) {
		fail("--tls and --socket are for private servers; those you name say in their URLs how to reach them")
	}
	return errors.Join(errs...)
}

// list shows what was asked, for the report.
func (o *Options) list() map[string]string {
	window := "default"
	if o.Window > 0 {
		window = strconv.Itoa(o.Window)
	}
	return map[string]string{
		"messages": strconv.Itoa(o.Messages), "body": strconv.Itoa(o.Body), "runs": strconv.Itoa(o.Runs), "window": window,
		"all properties": strconv.FormatBool(o.AllProperties), "tls": strconv.FormatBool(o.TLS),
		"socket": strconv.FormatBool(o.Socket), "environment": strings.Join(o.Environment, " "),
	}
}

// perTransaction names a size of transactions.
func perTransaction(n int) string {
	if n == 0 {
		return "one tx"
	}
	return strconv.Itoa(n) + "/tx"
}
