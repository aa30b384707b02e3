package main

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/status"
)

// Colors are for terminals only, and not for all of them. The null device stands for one: it is a character device, too.
func TestColorsAreForTerminalsThatWantThem(t *testing.T) {
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = terminal.Close() }()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, c := range []struct {
		name, term, noColor string
		out                 any
		want                colors
	}{
		{"a terminal", "xterm", "", terminal, true},
		{"a terminal of no known kind", "", "", terminal, true},
		{"a dumb one", "dumb", "", terminal, false},
		{"somebody who wants none", "xterm", "1", terminal, false},
		{"a file", "xterm", "", file, false},
		{"a buffer", "xterm", "", &strings.Builder{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TERM", c.term)
			t.Setenv("NO_COLOR", c.noColor)
			if got := colorsFor(c.out); got != c.want {
				t.Errorf("colors: %t, want %t", got, c.want)
			}
		})
	}
}

// Colors change nothing but colors: without them the output is the same, its columns too. They mark what is wrong.
func TestColorsMarkWhatIsWrongAndMoveNothing(t *testing.T) {
	broker, key, at := int32(1), "key", time.Now().Add(-time.Hour) // which is shown in whole seconds
	letters := []catalog.StoredDeadLetter{
		{ID: 1, BrokerID: &broker, Reason: "unroutable", RoutingKey: &key, Last: at}, {ID: 22, Reason: "nacked", Last: at},
	}
	report := &statusReport{
		Slots: []statusSlot{
			{Name: "one", State: "streaming", WALStatus: "reserved"}, {Name: "two", State: "missing"}, {Name: "three", State: "unread", WALStatus: "unreserved"},
		},
		Brokers:     []statusBroker{{ID: 1, State: "connected"}, {ID: 2, State: "detached_disconnected"}, {ID: 3, State: "blocked"}, {ID: 4}},
		DeadLetters: []catalog.LetterCount{{Count: 1, BrokerID: &broker, Reason: "unroutable", Oldest: at}},
		Snapshots:   []catalog.Snapshot{{ID: 1, State: "running"}, {ID: 2, State: "failed"}},
		Daemon:      &status.Daemon{State: "connecting"},
	}
	message := &decoder.Message{CommitTime: at, LSN: 5}
	envelope := &decoder.Envelope{BrokerID: 1, RoutingKey: "key", Body: []byte("body")}
	const redCode, yellowCode, greenCode, dimCode = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[02m"
	for _, c := range []struct {
		name  string
		print func(io.Writer, colors) error
		want  []string
	}{
		{
			"status", func(out io.Writer, c colors) error { return report.print(out, c) },
			[]string{
				redCode + "missing", yellowCode + "nobody reads it", redCode + "unreserved", redCode + "detached, disconnected", yellowCode + "blocked",
				redCode + "unroutable", redCode + "failed", redCode + "connecting",
			},
		},
		{
			"status without a daemon", func(out io.Writer, c colors) error { return (&statusReport{DaemonError: "no answer"}).print(out, c) },
			[]string{yellowCode + "not seen"},
		},
		{
			"dead-letters list", func(out io.Writer, c colors) error { return listDeadLetters(out, c, letters, 3) },
			[]string{redCode + "unroutable", yellowCode + "nacked", dimCode + at.Local().Format(time.DateTime)},
		},
		{
			"tail", func(out io.Writer, c colors) error { return showPassing(out, c, message, envelope, 10) },
			[]string{dimCode + at.Local().Format("15:04:05.000") + "  0/5", dimCode + "4 B"},
		},
		{
			"snapshot", func(out io.Writer, c colors) error { return showSnapshots(out, c, report.Snapshots, false) },
			[]string{redCode + "failed"},
		},
		{
			"doctor", func(out io.Writer, c colors) error {
				return printFindings(out, c, []catalog.Finding{{Level: catalog.LevelOK}, {Level: catalog.LevelWarning}, {Level: catalog.LevelError}})
			},
			[]string{greenCode + "ok", yellowCode + "warning", redCode + "ERROR"},
		},
		{
			"errors", func(out io.Writer, c colors) error {
				reportError(out, c, errors.New("it broke"))
				return nil
			},
			[]string{redCode + "pgamqp:"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var bare, colored strings.Builder
			if err := errors.Join(c.print(&bare, false), c.print(&colored, true)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(bare.String(), "\x1b") {
				t.Errorf("there are colors:\n%q", bare.String())
			}
			if stripped := regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(colored.String(), ""); stripped != bare.String() {
				t.Errorf("without its colors this is\n%s\ninstead of\n%s", stripped, bare.String())
			}
			for _, w := range c.want {
				if !strings.Contains(colored.String(), w) {
					t.Errorf("no %q in\n%q", w, colored.String())
				}
			}
		})
	}
}
