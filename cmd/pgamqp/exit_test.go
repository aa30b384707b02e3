package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	plain := errors.New("it broke")
	for _, c := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, 0, ""},
		{exitWith(exitSlotLost, nil), 0, ""},
		{plain, 1, "pgamqp: it broke\n"},
		{exitWith(exitPrecondition, plain), 3, "pgamqp: it broke\n"},
		{fmt.Errorf("run: %w", exitWith(exitSlotLost, plain)), 4, "pgamqp: run: it broke\n"},
		{exitWith(exitPrecondition, exitWith(exitSlotLost, plain)), 3, "pgamqp: it broke\n"},
		{errors.Join(plain, exitWith(exitSlotLost, plain)), 4, "pgamqp: it broke\n  it broke\n"},
		{exitWith(exitUsage, plain), 2, "pgamqp: it broke\n`pgamqp --help` shows what can be given.\n"},
		{&exitError{code: 4, err: plain, logged: true}, 4, ""},
	} {
		var stderr bytes.Buffer
		reportError(&stderr, false, c.err)
		if code := exitCode(c.err); code != c.code || stderr.String() != c.stderr {
			t.Errorf("%v: exit code %d, want %d; stderr %q, want %q", c.err, code, c.code, stderr.String(), c.stderr)
		}
	}
}

// TestUnitStartsAgainWhatMayHeal: systemd starts the daemon again without a limit, but not after exit codes that need a person.
// Whether it understands the unit is looked at where it is installed, by TestPackage.
func TestUnitStartsAgainWhatMayHeal(t *testing.T) {
	lines := strings.Split(document(t, "packaging", "pgamqp.service"), "\n")
	for _, want := range []string{
		"Restart=on-failure", "StartLimitIntervalSec=0",
		fmt.Sprintf("RestartPreventExitStatus=%d %d %d %d %d %d", exitUsage, exitPrecondition, exitSlotLost, exitSlotGone, exitOtherSystem, exitPublication),
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the unit does not say %s", want)
		}
	}
}
