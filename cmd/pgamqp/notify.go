package main

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often systemd hears how we are, unless its watchdog asks for more.
const statusEvery = 5 * time.Second

// notifySystemd tells systemd that the process has started, how it is, and that it stops (Type=notify, sd_notify(3)). It
// counts as started when it has its address and has begun to work, not when PostgreSQL answers: a unit that waits for
// another machine would be ended by its start timeout. The watchdog is fed while live returns no error. Without systemd
// it does nothing. It returns when ctx ends.
func notifySystemd(ctx context.Context, live func() error, ready func() (string, error), log *slog.Logger) {
	say := func(state ...string) (heard bool) {
		heard, err := systemd.SdNotify(false, strings.Join(state, "\n"))
		if err != nil {
			log.Warn("cannot tell systemd how it goes", slog.Any("error", err))
		}
		return heard
	}
	if !say(systemd.SdNotifyReady, "STATUS=starting") {
		return
	}
	watchdog, err := systemd.SdWatchdogEnabled(false) // 0 if there is none
	if err != nil {
		log.Warn("cannot read what the watchdog of systemd wants", slog.Any("error", err))
	}
	tick := time.NewTicker(min(statusEvery, cmp.Or(watchdog/3, statusEvery)))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			say(systemd.SdNotifyStopping, "STATUS=delivering what was read")
			return
		}
		state, err := ready()
		if err != nil {
			state = err.Error()
		}
		states := []string{"STATUS=" + strings.ReplaceAll(state, "\n", "; ")}
		if live() == nil {
			states = append(states, systemd.SdNotifyWatchdog)
		}
		say(states...)
	}
}
