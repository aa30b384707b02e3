package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/metrics"
)

// slotWarnings turns looks at a slot into what an operator should read in the log
// before the slot is lost. It belongs to the goroutine that looks.
type slotWarnings struct {
	log     *slog.Logger
	danger  string // the last one, empty while there is none
	repeats backoff.Repeats

	publicationMissing bool
	missingRepeats     backoff.Repeats
}

// slotDanger says in a word what threatens a slot, empty if nothing does.
func slotDanger(s catalog.SlotStatus) string {
	switch status := metrics.WALStatus(s.WALStatus); {
	case status == metrics.WALUnreserved:
		return "the next checkpoint may remove WAL that the slot needs"
	case status == metrics.WALLost:
		return "the WAL that the slot needs is removed"
	case s.SafeWALSize != nil && *s.SafeWALSize < s.Retained/3:
		return "less than a quarter of max_slot_wal_keep_size is left"
	case status == metrics.WALExtended:
		return "the server keeps more WAL than max_wal_size for the slot"
	}
	return ""
}

// heldByTransaction tells whether most of the WAL that is kept for a slot is confirmed:
// then an open transaction holds it, not the brokers.
func heldByTransaction(s catalog.SlotStatus) bool {
	return s.Retained-s.ConfirmedLag > s.Retained/2
}

// see logs a danger when it comes, changes or goes, and every half minute while it lasts.
// oldest describes the oldest open transaction, empty if there is none or nobody asked.
func (w *slotWarnings) see(s catalog.SlotStatus, oldest string, now time.Time) {
	danger := slotDanger(s)
	before := w.danger
	w.danger = danger
	if danger == "" {
		if before != "" {
			w.repeats = backoff.Repeats{}
			w.log.Info("slot is out of danger", slog.String("slot", s.Name), slog.String("wal_status", s.WALStatus))
		}
		return
	}
	if !w.repeats.Worth(danger, now) {
		return
	}
	attrs := []any{
		slog.String("slot", s.Name), slog.String("danger", danger), slog.String("wal_status", s.WALStatus),
		slog.Int64("retained_bytes", s.Retained), slog.Int64("unconfirmed_bytes", s.ConfirmedLag),
	}
	if s.SafeWALSize != nil {
		attrs = append(attrs, slog.Int64("safe_bytes", *s.SafeWALSize))
	}
	cause := "the brokers have not confirmed what is in it: see which of them is down or slow"
	if heldByTransaction(s) {
		cause = "an open transaction keeps the WAL, nearly all of it is confirmed: end the transaction"
		if oldest != "" {
			cause = fmt.Sprintf("%s; the oldest is %s", cause, oldest)
		}
	}
	w.log.Warn("slot is in danger of being lost", append(attrs, slog.String("cause", cause))...)
}

// seePublication logs as an error that the publication is missing: messages still come,
// but up to version 17 the next change of any row stops the slot for good.
func (w *slotWarnings) seePublication(name string, present bool, now time.Time) {
	missing := !present
	defer func() { w.publicationMissing = missing }()
	switch {
	case missing && w.missingRepeats.Worth(name, now):
		w.log.Error("publication is missing; create it before anybody changes a row, or up to PostgreSQL 17 the slot stops at that row for good",
			slog.String("publication", name), slog.String("fix", "pgamqp install"))
	case !missing && w.publicationMissing:
		w.missingRepeats = backoff.Repeats{}
		w.log.Info("publication is back", slog.String("publication", name))
	}
}
