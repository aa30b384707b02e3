package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/metrics"
)

// reloader reads the settings again when the process gets SIGHUP. The log level takes effect at once; of other
// changes it says that they wait for the next start. With a mistake in it, nothing changes.
type reloader struct {
	load    func() (config.Loaded, error)
	signals chan os.Signal
	running config.Config // what the process works with
	level   *slog.LevelVar
}

// newReloader catches the signal from now on: without, it would end the process.
func newReloader(load func() (config.Loaded, error), running config.Config, level *slog.LevelVar) *reloader {
	r := &reloader{load: load, signals: make(chan os.Signal, 1), running: running, level: level}
	signal.Notify(r.signals, syscall.SIGHUP)
	return r
}

// run answers signals until ctx ends.
func (r *reloader) run(ctx context.Context, log *slog.Logger, told *metrics.Reload) {
	defer signal.Stop(r.signals)
	told.Done(true) // the start
	for {
		select {
		case <-r.signals:
			told.Done(r.reload(log))
		case <-ctx.Done():
			return
		}
	}
}

func (r *reloader) reload(log *slog.Logger) (good bool) {
	loaded, err := r.load()
	if err != nil {
		log.Error("the settings have a mistake, nothing was changed", slog.Any("error", err))
		return false
	}
	waiting := slices.DeleteFunc(config.Differences(r.running, loaded.Config), func(name string) bool { return name == "log_level" })
	r.level.Set(loaded.LogLevel)
	r.running.LogLevel = loaded.LogLevel
	log.Log(context.Background(), max(loaded.LogLevel, slog.LevelInfo), "settings read again", // whatever the level is
		slog.String("log_level", loaded.LogLevel.String()), slog.String("after_a_restart", strings.Join(waiting, " ")))
	return true
}
