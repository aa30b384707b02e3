package integration

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// daemonFaults end and freeze daemons.
func daemonFaults() []fault {
	return []fault{
		{"daemon killed", 6, []string{theDaemon}, func(f *breakage) error { return f.restart(syscall.SIGKILL) }},
		{"daemon stopped", 4, []string{theDaemon}, func(f *breakage) error { return f.restart(syscall.SIGTERM) }},
		{"daemon frozen", 3, []string{theDaemon}, func(f *breakage) error {
			f.daemons.current.signal(syscall.SIGSTOP)
			f.hold(200*time.Millisecond, 2*walSenderTimeout)
			f.daemons.current.signal(syscall.SIGCONT)
			return nil
		}},
		{"standby takes over from a killed one", 3, []string{theDaemon}, func(f *breakage) error {
			return f.takeOver(func(first *daemon) error { return f.daemons.end(first, syscall.SIGKILL) })
		}},
		{"standby takes over from a stopped one", 2, []string{theDaemon}, func(f *breakage) error {
			return f.takeOver(func(first *daemon) error { return f.daemons.end(first, syscall.SIGTERM) })
		}},
		{"standby takes over from a frozen one", 1, []string{theDaemon}, func(f *breakage) error {
			return f.takeOver(func(first *daemon) error {
				first.signal(syscall.SIGSTOP)
				f.hold(walSenderTimeout, 2*walSenderTimeout)
				first.signal(syscall.SIGCONT) // it still holds what it had received
				f.hold(0, 3*time.Second)
				return f.daemons.end(first, syscall.SIGTERM)
			})
		}},
	}
}

// restart ends the daemon and starts another after a while.
func (f *breakage) restart(by syscall.Signal) error {
	err := f.daemons.end(f.daemons.current, by)
	f.hold(0, time.Second)
	f.daemons.promote()
	return err
}

// takeOver starts a second daemon and does something to the first.
func (f *breakage) takeOver(end func(first *daemon) error) error {
	first := f.daemons.current
	f.daemons.standby = f.daemons.launch()
	f.hold(500*time.Millisecond, 2*time.Second) // it may not yet wait for the slot
	err := end(first)
	f.daemons.promote()
	if !f.daemons.current.running() {
		err = errors.Join(err, fmt.Errorf("the standby has ended by itself, with exit code %d", f.daemons.current.cmd.ProcessState.ExitCode()))
	}
	return err
}

// within is the context of a step that must not take longer.
func (f *breakage) within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(f.ctx, limit)
}
