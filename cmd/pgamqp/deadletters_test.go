package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/metrics"
)

// --reason knows what docs/operations.md explains, and what the metric counts.
func TestReasonsAreThoseThatAreExplainedAndCounted(t *testing.T) {
	_, table, _ := strings.Cut(document(t, "docs", "operations.md"), "| reason | cause | mend |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` ").FindAllStringSubmatch(table, -1) {
		explained = append(explained, m[1])
	}
	if !slices.Equal(explained, reasons()) {
		t.Errorf("docs/operations.md explains %q, the command knows %q", explained, reasons())
	}
	registry := prometheus.NewRegistry()
	metrics.NewPublisher(registry).Broker(1)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]bool)
	for _, f := range families {
		if f.GetName() != "pgamqp_dead_lettered_messages_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" {
					counted[l.GetValue()] = true
				}
			}
		}
	}
	if len(counted) != len(reasons()) {
		t.Errorf("counted are %v, the command knows %q", counted, reasons())
	}
}

// The shell offers them.
func TestReasonsAreCompleted(t *testing.T) {
	for _, command := range []string{"list", "redeliver", "purge"} {
		code, out, _ := pgamqp(t, "__complete", "dead-letters", command, "--reason", "")
		if want := strings.Join(reasons(), "\n") + "\n:4\n"; code != exitOK || out != want {
			t.Errorf("%s: exit code %d, offered are\n%s", command, code, out)
		}
	}
}

func TestLimitsThatAreNoNumbersOfDeadLetters(t *testing.T) {
	for _, c := range []struct{ command, limit, want string }{
		{"list", "0", "--limit 0: give a number of at least 1"},
		{"purge", "-1", "--limit -1: give a number that is not negative; 0 is no limit"},
		{"redeliver", "-1", "--limit -1: give a number that is not negative; 0 is no limit"},
	} {
		code, _, errs := pgamqp(t, "dead-letters", c.command, "--limit", c.limit, "--broker", "1", "--database-url", "postgres://nobody@127.0.0.1:1/x")
		if code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit code %d, %s", c.command, code, errs)
		}
	}
}
