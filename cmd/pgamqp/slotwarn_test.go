package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

// sayings is a log whose latest lines are asked for.
type sayings struct{ bytes.Buffer }

func (s *sayings) latest() string {
	defer s.Reset()
	return s.String()
}

func newWarnings() (*slotWarnings, *sayings) {
	var said sayings
	return &slotWarnings{log: slog.New(slog.NewTextHandler(&said, nil))}, &said
}

func TestP23DangerOfTheSlotIsLoggedWhenItChangesAndNowAndThen(t *testing.T) {
	w, said := newWarnings()
	start := time.Now()
	const mb = 1 << 20
	slot := func(status string, retained, lag, safe int64) catalog.SlotStatus {
		return catalog.SlotStatus{Name: "pgamqp", WALStatus: status, Retained: retained, ConfirmedLag: lag, SafeWALSize: &safe}
	}
	for _, c := range []struct {
		what  string
		slot  catalog.SlotStatus
		after time.Duration
		want  string // nothing is logged if empty
	}{
		{"all is well", slot("reserved", 10*mb, 9*mb, 90*mb), 0, ""},
		{"too little is left", slot("reserved", 80*mb, 79*mb, 20*mb), 3 * time.Second, "less than a quarter of max_slot_wal_keep_size"},
		{"still", slot("reserved", 81*mb, 80*mb, 19*mb), 6 * time.Second, ""},
		{"worse", slot("unreserved", 100*mb, 99*mb, -mb), 9 * time.Second, "the next checkpoint may remove"},
		{"still worse", slot("unreserved", 100*mb, 99*mb, -mb), 12 * time.Second, ""},
		{"half a minute later", slot("unreserved", 100*mb, 99*mb, -mb), 40 * time.Second, "the next checkpoint may remove"},
		{"well again", slot("reserved", mb, 0, 99*mb), 43 * time.Second, "slot is out of danger"},
		{"still well", slot("reserved", mb, 0, 99*mb), 46 * time.Second, ""},
		{"as before, and new again", slot("unreserved", 100*mb, 99*mb, -mb), 49 * time.Second, "the brokers have not confirmed"},
	} {
		w.see(c.slot, "", start.Add(c.after))
		if got := said.latest(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: logged %q, want %q", c.what, got, c.want)
		}
	}
}

func TestP15WarningNamesTheTransactionThatHoldsTheWAL(t *testing.T) {
	const oldest = "session 7 of role app in database shop"
	for name, c := range map[string]struct {
		slot   catalog.SlotStatus
		oldest string
		want   string
		not    string
	}{
		"held by a transaction": {catalog.SlotStatus{WALStatus: "extended", Retained: 100, ConfirmedLag: 10}, oldest, oldest, "brokers"},
		"held by the brokers":   {catalog.SlotStatus{WALStatus: "extended", Retained: 100, ConfirmedLag: 90}, oldest, "the brokers", oldest},
		"held by what has ended": {
			catalog.SlotStatus{WALStatus: "extended", Retained: 100, ConfirmedLag: 10}, "", "an open transaction", "the oldest is",
		},
	} {
		w, said := newWarnings()
		w.see(c.slot, c.oldest, time.Now())
		if got := said.latest(); !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
			t.Errorf("%s: logged %q", name, got)
		}
	}
}

func TestP22MissingPublicationIsAnErrorInTheLog(t *testing.T) {
	w, said := newWarnings()
	start := time.Now()
	for _, c := range []struct {
		present bool
		after   time.Duration
		want    string
	}{
		{true, 0, ""},
		{false, 3 * time.Second, "level=ERROR"},
		{false, 6 * time.Second, ""},
		{false, 40 * time.Second, "level=ERROR"},
		{true, 43 * time.Second, "publication is back"},
		{true, 46 * time.Second, ""},
		{false, 49 * time.Second, "level=ERROR"},
	} {
		w.seePublication("pub", c.present, start.Add(c.after))
		if got := said.latest(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%v after %s: logged %q, want %q", c.present, c.after, got, c.want)
		}
	}
}
