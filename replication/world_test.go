package replication

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

// slotRow is the row of the slot, as the server gives it.
type slotRow struct {
	kind, plugin, database, twoPhase, temporary string
	walStatus, confirmed, here, timeout         string
	recovery                                    string
	holder                                      any // the process id of who reads it, or nil
}

// start is the position up to which the slot of a new world is confirmed.
const start pglogrepl.LSN = 0x1500000

func goodSlot() slotRow {
	return slotRow{
		kind: "logical", plugin: "pgoutput", database: "fake", twoPhase: "false", temporary: "false",
		walStatus: "reserved", confirmed: start.String(), here: "fake", timeout: "60000", recovery: "false",
	}
}

// system is the usual cluster on some timeline; its WAL ends beyond all tests.
func system(timeline int32) fakewal.System {
	return fakewal.System{ID: "71", Timeline: timeline, Position: 0x2000000}
}

// world is a fake server with a slot and a publication.
type world struct {
	*fakewal.Server
	t *testing.T

	mu          sync.Mutex // guards all below
	slot        slotRow
	publication bool
	answers     map[string]*fakewal.Answer // by a part of the query, before all else
	freeze      string                     // a part of the query that is never answered
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, slot: goodSlot(), publication: true, answers: map[string]*fakewal.Answer{}}
	w.Server = fakewal.Start(t, fakewal.Config{System: system(1), Query: w.query})
	return w
}

func (w *world) query(q *fakewal.Query) *fakewal.Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.freeze != "" && strings.Contains(q.SQL, w.freeze) {
		q.Conn.Silence()
	}
	for part, answer := range w.answers {
		if strings.Contains(q.SQL, part) {
			return answer
		}
	}
	switch s := w.slot; {
	case strings.Contains(q.SQL, "pg_replication_slots"):
		return &fakewal.Answer{
			Columns: strings.Split("kind plugin database two_phase temporary wal_status confirmed here recovery timeout holder", " "),
			Rows: [][]any{{
				s.kind, s.plugin, s.database, s.twoPhase, s.temporary, s.walStatus, s.confirmed, s.here, s.recovery, s.timeout, s.holder,
			}},
		}
	case strings.Contains(q.SQL, "pg_publication"):
		a := &fakewal.Answer{Columns: []string{"one"}}
		if w.publication {
			a.Rows = [][]any{{1}}
		}
		return a
	}
	return nil
}

// change changes what the server answers from now on.
func (w *world) change(f func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// confirm sets the position up to which the slot is confirmed.
func (w *world) confirm(lsn pglogrepl.LSN) {
	w.change(func(w *world) { w.slot.confirmed = lsn.String() })
}

// stream waits until the session has started to stream.
func (w *world) stream() *fakewal.Stream {
	w.t.Helper()
	return fakewal.Await[*fakewal.Stream](w.t, w.Server)
}

// config is for a session of this world.
func (w *world) config() Config {
	w.t.Helper()
	pg, err := pgconn.ParseConfig(w.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	return Config{
		Postgres: func() *pgconn.Config { return pg }, Slot: "pgamqp", Publication: "pub",
		InboxMessages: 512, InboxBytes: 1 << 20, ShutdownTimeout: limit,
	}
}

// running is a session at work.
type running struct {
	*Session
	t       *testing.T
	metrics *prometheus.Registry
	stop    context.CancelFunc
	ended   chan error
}

// run starts a session. It has ended when the test has.
func (w *world) run(cfg Config, to Sink) *running {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	s, err := NewSession(cfg, quiet(), metrics.NewReplication(reg, cfg.Slot))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Session: s, t: w.t, metrics: reg, stop: cancel, ended: make(chan error, 1)}
	go func() {
		r.ended <- s.Run(ctx, to)
		close(r.ended)
	}()
	w.t.Cleanup(func() {
		cancel()
		w.Admit(fakewal.Refuse)
		w.DropAll() // a test that has failed may leave anything behind
		<-r.ended   //nolint:errcheck // the test has looked at it, or has failed
	})
	return r
}

// end waits until Run has returned, and gives its error.
func (r *running) end() error {
	r.t.Helper()
	return receive(r.t, "end of the session", r.ended)
}

// until waits until something is so that nobody tells.
func (r *running) until(what string, is func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("not within %s: %s; state %+v", limit, what, r.Status())
		}
	}
}

// awaitState waits until the session is in a state.
func (r *running) awaitState(want metrics.ReplicationState) {
	r.t.Helper()
	r.until(string(want), func() bool { return r.Status().State == want })
}

// stopAndSee ends the session's ctx and waits until its stream knows.
func (r *running) stopAndSee() {
	r.t.Helper()
	r.stop()
	r.until("stopping", r.current.Load().stopping.Load)
}

// counted returns the value of a counter, of its series that has a label of this
// value; any series if label is empty.
func (r *running) counted(name, label string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if label == "" || l.GetValue() == label {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	r.t.Fatalf("no counter %s with %q", name, label)
	return 0
}

// send sends all frames of some units.
func send(st *fakewal.Stream, units ...fakewal.Unit) {
	for _, u := range units {
		st.Send(u.Frames...)
	}
}

// emit logs a lone message with a text.
func emit(l *fakewal.Log, text string) fakewal.Unit { return l.Emit("amqp", []byte(text)) }
