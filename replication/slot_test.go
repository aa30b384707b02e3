package replication

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

// Each of these would lose messages or wedge the slot if it were streamed, or give
// an error of the server that misleads.
func TestSlotThatMustNotBeStreamedIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*world)
		problem string
		fix     string
		cause   Cause
	}{
		"missing":          {func(w *world) { w.slot.kind = "" }, "does not exist; the server's WAL ends at 0/2000000 on timeline 1", "pgamqp install", Gone},
		"physical":         {func(w *world) { w.slot.kind = "physical" }, "is a physical slot", "--slot", Unfit},
		"another plugin":   {func(w *world) { w.slot.plugin = "wal2json" }, "uses the plugin wal2json", "pgamqp install", Unfit},
		"another database": {func(w *world) { w.slot.database = "shop" }, "belongs to database shop, this is fake", "connect to that database", Unfit},
		"two-phase":        {func(w *world) { w.slot.twoPhase = "true" }, "has two_phase on", "pg_drop_replication_slot('pgamqp')", Unfit},
		"temporary":        {func(w *world) { w.slot.temporary = "true" }, "is temporary", "--slot", Unfit},
		"lost": {
			func(w *world) { w.slot.walStatus = "lost" },
			"was invalidated; messages between 0/1500000 and 0/2000000 that are not confirmed are lost", "pgamqp install", Invalidated,
		},
		"without its publication": {func(w *world) { w.publication = false }, `needs publication "pub", which does not exist`, "pgamqp install", NoPublication},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.change(c.change)
			r := w.run(w.config(), confirmAll())
			err := r.end()
			var slot *SlotError
			if !errors.As(err, &slot) || Retryable(err) {
				t.Fatalf("ended with %v", err)
			}
			if slot.Slot != "pgamqp" || slot.Cause != c.cause || !strings.Contains(slot.Problem, c.problem) || !strings.Contains(slot.Fix, c.fix) {
				t.Errorf("got %+v", slot)
			}
			for _, e := range w.Pending() {
				if st, ok := e.(*fakewal.Stream); ok {
					t.Errorf("streamed all the same: %v", st)
				}
			}
		})
	}
}

// The server ends the stream with a code that usually means: try again.
func TestP23SlotThatIsLostWhileStreamingEndsTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run(w.config(), confirmAll())
	st := w.stream()
	w.change(func(w *world) { w.slot.walStatus = "lost" })
	st.Fail(fakewal.Fatal("57P01", "terminating connection due to administrator command"))
	var slot *SlotError
	if err := r.end(); !errors.As(err, &slot) || slot.Cause != Invalidated {
		t.Errorf("ended with %v", err)
	}
	if s := r.Status(); s.State != metrics.StateSlotLost || !errors.As(s.Err, &slot) {
		t.Errorf("status %+v", s)
	}
}

func TestH10SlotNamesThatPostgreSQLDoesNotAllowAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"", "Slot", "a-b", "a b", "s;drop", `a"b`, "ä", strings.Repeat("x", 64), "a\nb"} {
		cfg := w.config()
		cfg.Slot = name
		var slot *SlotError
		if _, err := NewSession(cfg, quiet(), freshMetrics()); !errors.As(err, &slot) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"a", "a_1", strings.Repeat("x", 63)} {
		cfg := w.config()
		cfg.Slot = name
		if _, err := NewSession(cfg, quiet(), freshMetrics()); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// questions are what is asked between the login and the stream, each with a part of its text. A
// server on timeline 2 is asked all.
func questions() map[string]string {
	return map[string]string{
		"IDENTIFY_SYSTEM": "IDENTIFY_SYSTEM", "the slot": "pg_replication_slots", "the publication": "pg_publication",
		"the history": "TIMELINE_HISTORY", "the start": "START_REPLICATION",
	}
}

func historyOfTimeline2() *fakewal.Answer {
	return &fakewal.Answer{Columns: []string{"filename", "content"}, Rows: [][]any{{"2", "1\t0/100\tno\n"}}}
}

func TestServerThatCannotBeInspectedIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, part := range questions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.SetSystem(system(2))
			w.change(func(w *world) {
				w.answers["TIMELINE_HISTORY"] = historyOfTimeline2()
				w.answers[part] = &fakewal.Answer{Error: &fakewal.Error{Code: "57014", Message: "canceled"}}
			})
			r := w.run(w.config(), confirmAll())
			fakewal.Await[*fakewal.Closed](t, w.Server)
			w.change(func(w *world) {
				delete(w.answers, part)
				w.answers["TIMELINE_HISTORY"] = historyOfTimeline2()
			})
			w.stream()
			r.awaitState(metrics.StateStreaming)
			if n := r.counted("pgamqp_postgres_connects_total", "error"); n < 1 {
				t.Errorf("%v errors counted", n)
			}
		})
	}
}

// A server that freezes between the login and the stream is left, and seen to be gone.
func TestServerThatFreezesBeforeTheStreamIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, part := range questions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.SetSystem(system(2))
			w.change(func(w *world) {
				w.answers["TIMELINE_HISTORY"] = historyOfTimeline2()
				w.freeze = part
			})
			cfg := w.config()
			cfg.startTimeout = 200 * time.Millisecond
			r := w.run(cfg, confirmAll())
			if closed := fakewal.Await[*fakewal.Closed](t, w.Server); closed.Conn.ID != 1 {
				t.Errorf("%v", closed)
			}
			r.until("an error that says so", func() bool { return errors.Is(r.Status().Err, errSilent) })
			w.change(func(w *world) { w.freeze = "" })
			w.stream()
			r.awaitState(metrics.StateStreaming)
		})
	}
}

func TestAnswersThatMakeNoSenseAreErrors(t *testing.T) {
	t.Parallel()
	one := func(cells ...any) *fakewal.Answer {
		return &fakewal.Answer{Columns: make([]string, len(cells)), Rows: [][]any{cells}}
	}
	for name, answer := range map[string]*fakewal.Answer{
		"no row":                 {Columns: []string{"x"}},
		"too few columns":        one("logical", "pgoutput"),
		"no position":            one("logical", "pgoutput", "fake", "false", "false", "reserved", nil, "fake", "false", "60000", nil),
		"position 0/0":           one("logical", "pgoutput", "fake", "false", "false", "reserved", "0/0", "fake", "false", "60000", nil),
		"a timeout like 1minute": one("logical", "pgoutput", "fake", "false", "false", "reserved", "0/1", "fake", "false", "1min", nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.change(func(w *world) { w.answers["pg_replication_slots"] = answer })
			w.run(w.config(), confirmAll())
			fakewal.Await[*fakewal.Closed](t, w.Server)
			w.change(func(w *world) { clear(w.answers) })
			w.stream()
		})
	}
}
