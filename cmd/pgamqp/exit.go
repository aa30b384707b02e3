package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// The exit codes of the process, documented in the help of the root command.
const (
	exitOK           = 0
	exitFailure      = 1 // anything that has no code of its own
	exitUsage        = 2 // the command line or the configuration is wrong
	exitPrecondition = 3 // the server lacks something that somebody must set up: grant, wal_level, an installation
	exitSlotLost     = 4 // the slot is invalidated: the WAL behind it is gone
	exitSlotGone     = 5 // the slot, and with it the place to go on from, is gone
	exitOtherSystem  = 6 // not the database system that this process has worked with
	exitPublication  = 7 // the publication is missing, or was when a row was changed
)

const exitCodeHelp = `Exit codes:
  0  success, or a clean stop after SIGTERM
  1  failure; trying again may help
  2  mistake in the command line or in the configuration
  3  something is missing on the server: installation, grant, wal_level
  4  the replication slot is lost: the server has removed the WAL behind it
  5  the replication slot is gone: dropped, or not on the promoted standby
  6  another database system answers at the address than before
  7  the publication is missing, or was when rows were changed
With 4 to 7 messages may be missing: nothing is made anew, somebody must decide.`

// exitError gives an error the exit code that it leads to.
type exitError struct {
	code   int
	err    error
	logged bool // it is in the log already; saying it again on stderr would only break a log in JSON
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exitWith makes the process end with a code if err reaches main.
func exitWith(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// exitCode returns the code that an error leads to. The outermost code counts.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return exitFailure
}

// reportError tells the user, if nobody has told the log. Each line of an error with several is indented.
func reportError(stderr io.Writer, c colors, err error) {
	if err == nil {
		return
	}
	if e, ok := errors.AsType[*exitError](err); ok && e.logged {
		return
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i, line := range lines {
		switch {
		case i == 0:
			line = c.paint(red, "pgamqp:") + " " + line
		case line != "":
			line = "  " + line
		}
		_, _ = fmt.Fprintln(stderr, line)
	}
	if exitCode(err) == exitUsage && len(lines) == 1 {
		_, _ = fmt.Fprintln(stderr, "`pgamqp --help` shows what can be given.")
	}
}
