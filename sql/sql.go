// Package sql holds the SQL that makes the schema amqp: tables, the functions that
// applications call, and privileges.
//
// The scripts run in one transaction, in the order of [Scripts]. They may be run again at
// any time: functions are replaced, which keeps their privileges; what must happen once is
// remembered in amqp.installation and not repeated.
package sql

import (
	"embed"
	"fmt"
	"strings"
)

// Version is the version of schema amqp that the scripts install.
const Version = 5

// DefaultName is the name of the slot and of the publication unless others are given.
const DefaultName = "pgamqp"

// Settings that carry the names of slot and publication to the scripts. Empty means: the
// names of an earlier installation, else [DefaultName].
const (
	SlotSetting        = "pgamqp.slot"
	PublicationSetting = "pgamqp.publication"
)

// Script is one file of SQL.
type Script struct{ Name, Text string }

//go:embed *.sql
var files embed.FS

// names is the order in which the scripts depend on each other.
func names() []string {
	return []string{
		"namespace.sql", "owners.sql", "schema.sql", "takeover.sql", "limits.sql", "signature.sql", "emit.sql", "check.sql", "publish.sql", "topology.sql",
		"delivery.sql", "dead_letter.sql", "route.sql", "snapshot.sql", "privileges.sql", "version.sql",
	}
}

// Scripts returns what installs or upgrades the schema, to be run in this order inside one
// transaction.
func Scripts() []Script {
	var scripts []Script
	for _, name := range names() {
		scripts = append(scripts, Script{Name: name, Text: read(name)})
	}
	return scripts
}

// Owners returns the one of [Scripts] that refuses a schema with something of others in it. It makes no objects, and may
// run at any time.
func Owners() Script {
	const name = "owners.sql"
	return Script{Name: name, Text: read(name)}
}

// Privileges returns the one of [Scripts] that says who may do what. It makes no objects.
func Privileges() Script {
	const name = "privileges.sql"
	return Script{Name: name, Text: read(name)}
}

// Text returns the whole installation as one text for psql: publication, schema and slot.
func Text(slot, publication string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- Schema amqp of pgamqp, version %d. Run it with: psql -v ON_ERROR_STOP=1 -f FILE DATABASE\n\n", Version)
	fmt.Fprintf(&b, "select pg_catalog.set_config(%s, %s, false), pg_catalog.set_config(%s, %s, false);\n\n",
		Literal(SlotSetting), Literal(slot), Literal(PublicationSetting), Literal(publication))
	b.WriteString(Owners().Text + "\n")
	b.WriteString(read("publication.sql"))
	b.WriteString("\nbegin;\n\n")
	for _, script := range Scripts() {
		fmt.Fprintf(&b, "-- %s\n\n%s\n", script.Name, script.Text)
	}
	b.WriteString("commit;\n\n")
	b.WriteString(read("slot.sql"))
	return b.String()
}

// Literal returns s as a string constant of SQL.
func Literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) { // means the same under any standard_conforming_strings
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// read returns an embedded file; that it is there is decided at compile time and tested.
func read(name string) string {
	text, err := files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("embedded script %s: %v", name, err))
	}
	return string(text)
}
