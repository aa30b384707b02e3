package main

import (
	"io"
	"log/slog"

	"github.com/pgamqp/pgamqp/internal/config"
)

// newLogger returns the daemon's logger. It is the only one: nothing uses slog's default.
func newLogger(w io.Writer, format config.LogFormat, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
