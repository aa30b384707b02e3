package config

import (
	"fmt"
	"strings"
)

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

// Reference returns everything about each setting in Markdown, for docs/configuration.md.
func Reference() string {
	var b strings.Builder
	defaults := Default()
	for i, o := range options() {
		byDefault, reload := "none", "no: it waits for the next start"
		if text := o.show(&defaults); text != "" {
			byDefault = "`" + text + "`"
		}
		if o.reloads {
			reload = "yes, at once"
		}
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "### `%s`\n\n%s.\n\n%s\n\n| | |\n|---|---|\n", o.name, sentence(o.doc), o.about.does)
		for _, row := range [...][2]string{
			{"environment, flag", "`" + o.env() + "`, `--" + o.flag() + "`"},
			{"takes", o.about.takes},
			{"default", byDefault},
			{"change it", o.about.change},
			{"goes with", o.about.with},
			{"SIGHUP takes it up", reload},
		} {
			fmt.Fprintf(&b, "| %s | %s |\n", row[0], row[1])
		}
	}
	return b.String()
}

// sentence makes a description of a flag begin one.
func sentence(doc string) string {
	doc = strings.ReplaceAll(doc, "`", "")
	return strings.ToUpper(doc[:1]) + doc[1:]
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
