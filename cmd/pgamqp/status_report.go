package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/status"
)

// statusReport is what `pgamqp status` shows. Its JSON is an interface: fields are added, not renamed, and states are
// single words, which [text] turns into what people read.
type statusReport struct {
	PostgreSQL   string                `json:"postgresql"` // version
	Database     string                `json:"database"`
	Schema       int                   `json:"schema_version"`
	Slot         string                `json:"installed_slot"` // that of the installation, whichever is shown
	Slots        []statusSlot          `json:"slots"`
	Brokers      []statusBroker        `json:"brokers"`
	DeadLetters  []catalog.LetterCount `json:"dead_letters"`
	Snapshots    []catalog.Snapshot    `json:"snapshots"` // not over, or failed
	OldestWriter string                `json:"oldest_writing_transaction"`

	Daemon      *status.Daemon `json:"daemon"` // null if it does not answer
	DaemonError string         `json:"daemon_error,omitempty"`
}

type statusSlot struct {
	Name       string   `json:"name"`
	State      string   `json:"state"` // streaming, unread, missing, lost
	LagBytes   int64    `json:"lag_bytes"`
	LagSeconds *float64 `json:"lag_seconds"` // age of the oldest commit that is not confirmed; null if no daemon tells
	Retained   int64    `json:"retained_wal_bytes"`
	SafeWAL    *int64   `json:"safe_wal_bytes"` // null: without a limit
	WALStatus  string   `json:"wal_status"`
	Confirmed  string   `json:"confirmed_lsn"`
}

type statusBroker struct {
	ID    int32    `json:"broker_id"`
	Hosts []string `json:"hosts"`
	State string   `json:"state"` // a status.Broker's Word; "" if no daemon answers

	*status.Broker `json:"counters,omitempty"`
	*status.Rate   `json:"rate,omitempty"`
	DeadLetters    int64 `json:"dead_letters"`
}

func reportOf(o *catalog.Overview) *statusReport {
	r := &statusReport{
		PostgreSQL: o.ServerVersion, Database: o.Database, Schema: o.Installation.Version,
		Slot: o.Installation.Slot, Slots: []statusSlot{}, Brokers: []statusBroker{},
		DeadLetters:  append([]catalog.LetterCount{}, o.Letters...),
		Snapshots:    append([]catalog.Snapshot{}, o.Snapshots...),
		OldestWriter: o.OldestWriter,
	}
	for i := range o.Slots {
		s := &o.Slots[i]
		state := "unread"
		switch {
		case s.Missing:
			state = "missing"
		case s.Lost():
			state = "lost"
		case s.Active:
			state = "streaming"
		}
		r.Slots = append(r.Slots, statusSlot{
			Name: s.Name, State: state, LagBytes: s.ConfirmedLag, Retained: s.Retained, SafeWAL: s.SafeWALSize,
			WALStatus: s.WALStatus, Confirmed: s.ConfirmedFlush.String(),
		})
	}
	for i := range o.Brokers {
		b := statusBroker{ID: o.Brokers[i].ID, Hosts: []string{}}
		for _, h := range o.Brokers[i].Hosts {
			b.Hosts = append(b.Hosts, h.String())
		}
		for _, l := range o.Letters {
			if l.BrokerID != nil && *l.BrokerID == b.ID {
				b.DeadLetters += l.Count
			}
		}
		r.Brokers = append(r.Brokers, b)
	}
	return r
}

// addDaemon adds what a daemon says; before is an earlier moment of it, or zero.
func (r *statusReport) addDaemon(now *status.Daemon, before status.Daemon) {
	r.Daemon = now
	for i := range r.Slots {
		for _, known := range now.Slots {
			if known.Name == r.Slots[i].Name {
				r.Slots[i].LagSeconds = &known.LagSeconds
			}
		}
	}
	rates := status.Rates(before, *now)
	for i := range r.Brokers {
		b := &r.Brokers[i]
		b.State = "idle" // of a broker that it has not met yet
		at := slices.IndexFunc(now.Brokers, func(d status.Broker) bool { return d.ID == b.ID })
		if at < 0 {
			continue
		}
		b.Broker = &now.Brokers[at]
		b.State = b.Word()
		if !before.At.IsZero() {
			rate := rates[b.ID]
			b.Rate = &rate
		}
	}
}

// stateColor is that of a state of a daemon, slot, broker or snapshot, or of WAL: red for what needs somebody.
func stateColor(state string) color {
	switch state {
	case "missing", "lost", "unreserved", "disconnected", "detached_disconnected", "failed", "connecting", "stopped", "slot_lost":
		return red
	case "unread", "extended", "blocked", "holding", "catching_up", "paused":
		return yellow
	}
	return plain
}

// text is a state of a slot or a broker for people.
func text(state string) string {
	switch state {
	case "unread":
		return "nobody reads it"
	case "detached_disconnected":
		return "detached, disconnected"
	case "catching_up":
		return "catching up"
	}
	return state
}

// misnamed is what to say if the slot that is shown is not there, and is not that of the installation.
func (r *statusReport) misnamed() string {
	if len(r.Slots) > 0 && r.Slots[0].State == "missing" && r.Slots[0].Name != r.Slot {
		return fmt.Sprintf("installed with slot %q: give --slot %s", r.Slot, r.Slot)
	}
	return ""
}

// print draws the tables.
func (r *statusReport) print(out io.Writer, c colors) error {
	fmt.Fprintf(out, "database %s, PostgreSQL %s, schema version %d\n", r.Database, r.PostgreSQL, r.Schema)
	if d := r.Daemon; d != nil {
		fmt.Fprintf(out, "daemon: %s, version %s, oldest unconfirmed commit %s\n", c.paint(stateColor(d.State), d.State), d.Version, ageOf(d.LagSeconds))
	} else {
		fmt.Fprintf(out, "daemon: %s: %s\n", c.paint(yellow, "not seen"), r.DaemonError)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSLOT\t"+c.paint(plain, "STATE")+"\tLAG\tBEHIND\tWAL KEPT\tUNTIL LOST\t"+c.paint(plain, "WAL STATUS")+"\tCONFIRMED")
	for _, s := range r.Slots {
		safe := "no limit"
		if s.SafeWAL != nil {
			safe = status.Size(float64(*s.SafeWAL))
		}
		if s.State == "missing" {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t%s\t-\n", s.Name, c.paint(red, s.State), c.paint(plain, "-"))
			continue
		}
		behind := "-"
		if s.LagSeconds != nil {
			behind = ageOf(*s.LagSeconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, c.paint(stateColor(s.State), text(s.State)), status.Size(float64(s.LagBytes)), behind,
			status.Size(float64(s.Retained)), safe, c.paint(stateColor(s.WALStatus), s.WALStatus), s.Confirmed)
	}
	if hint := r.misnamed(); hint != "" {
		fmt.Fprintln(w, hint)
	}
	fmt.Fprintln(w, "\nBROKER\tHOSTS\t"+c.paint(plain, "STATE")+"\tIN FLIGHT\tCONFIRMED/S\tCONFIRM P50\tP99\tDEAD LETTERS")
	for i := range r.Brokers {
		b := &r.Brokers[i]
		flight, rate, p50, p99 := "-", "-", "-", "-"
		if b.Broker != nil {
			flight = fmt.Sprintf("%.0f/%.0f", b.Unconfirmed, b.Window)
		}
		if b.Rate != nil {
			rate, p50, p99 = fmt.Sprintf("%.0f", b.Rate.Confirmed), milliseconds(b.ConfirmP50), milliseconds(b.ConfirmP99)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", b.ID, strings.Join(b.Hosts, ", "), c.paint(stateColor(b.State), cmp.Or(text(b.State), "-")), flight, rate, p50, p99, b.DeadLetters)
	}
	if len(r.Brokers) == 0 {
		fmt.Fprintln(w, "none: insert into amqp.broker (host) values ('...');")
	}
	if len(r.DeadLetters) > 0 {
		fmt.Fprintln(w, "\nDEAD LETTERS\tBROKER\t"+c.paint(plain, "REASON")+"\tOLDEST")
		for _, l := range r.DeadLetters {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s ago\n", l.Count, orDash(l.BrokerID), c.paint(reasonColor(l.Reason), l.Reason), ageOf(time.Since(l.Oldest).Seconds()))
		}
	}
	if len(r.Snapshots) > 0 {
		fmt.Fprintln(w, "\nSNAPSHOT\tTABLE\t"+c.paint(plain, "STATE")+"\tABOUT\tERROR")
		for _, s := range r.Snapshots {
			fmt.Fprintf(w, "%d\t%s.%s\t%s\t%s\t%s\n", s.ID, printable(s.Schema), printable(s.Table), c.paint(stateColor(s.State), s.State), share(s), printable(s.Error))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.OldestWriter != "" {
		_, err := fmt.Fprintf(out, "\noldest writing transaction, whose WAL is kept: %s\n", printable(r.OldestWriter))
		return err
	}
	return nil
}

// ageOf is a time for people.
func ageOf(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case seconds <= 0:
		return "none"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

// milliseconds is a time to a confirm, or a dash for none.
func milliseconds(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g ms", seconds*1000)
}
