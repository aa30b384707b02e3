package replication

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

// wantSlotError waits until the session has ended for this cause, and checks the words.
func (r *running) wantSlotError(cause Cause, words ...string) {
	r.t.Helper()
	err := r.end()
	var slot *SlotError
	if !errors.As(err, &slot) || slot.Cause != cause {
		r.t.Fatalf("ended with %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("%q does not say %q", err, w)
		}
	}
}

// confirmed runs a session until it has confirmed a message, and returns where that ends.
func confirmed(t *testing.T) (w *world, r *running, st *fakewal.Stream, end string) {
	t.Helper()
	w = newWorld(t)
	r = w.run(w.config(), confirmAll())
	st = w.stream()
	u := emit(fakewal.NewLog(start), "lone")
	send(st, u)
	st.AwaitFlush(t, u.End)
	return w, r, st, u.End.String()
}

func TestP49OtherSystemBehindTheAddressEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, slot := range map[string]string{"with a slot of that name": "logical", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r, st, end := confirmed(t)
			w.SetSystem(fakewal.System{ID: "72", Timeline: 1, Position: 0x2000000})
			w.change(func(w *world) { w.slot.kind = slot })
			st.Conn.Drop()
			r.wantSlotError(OtherSystem, "system 71", "system 72", end)
		})
	}
}

func TestP25SlotThatIsDroppedWhileItIsReadNamesTheGap(t *testing.T) {
	t.Parallel()
	w, r, st, end := confirmed(t)
	w.change(func(w *world) { w.slot.kind = "" })
	st.Conn.Drop()
	r.wantSlotError(Gone, "does not exist any more", "confirmed up to "+end+" on timeline 1", "ends at 0/2000000 on timeline 1", "pgamqp install")
	if s := r.Status(); s.State != metrics.StateSlotLost {
		t.Errorf("status %+v", s)
	}
}

// The server says so only when streaming is to begin, with the code of a missing publication.
func TestP25SlotThatIsDroppedBetweenLookAndStartIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) {
		w.answers["START_REPLICATION"] = &fakewal.Answer{Error: &fakewal.Error{Code: "42704", Message: `replication slot "pgamqp" does not exist`}}
	})
	w.run(w.config(), confirmAll()).wantSlotError(Gone, "confirmed up to "+start.String())
}

func TestP45PromotedStandbyWithoutTheSlotNamesTheGap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		position pglogrepl.LSN
		says     string
	}{
		"that had everything":        {0x2000000, "a standby was promoted that had not got the slot"},
		"that was behind the daemon": {start, "neither the slot nor the last of what is confirmed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, r, st, end := confirmed(t)
			y := system(2)
			y.Position = c.position
			w.SetSystem(y)
			w.change(func(w *world) {
				w.slot.kind = ""
				w.answers["TIMELINE_HISTORY"] = &fakewal.Answer{Columns: []string{"filename", "content"}, Rows: [][]any{{"2", "1\t0/1500001\tno\n"}}}
			})
			st.Conn.Drop()
			r.wantSlotError(Gone, c.says, "confirmed up to "+end+" on timeline 1", "on timeline 2")
		})
	}
}

func TestP20AndP21ErrorInMidStreamEndsTheSession(t *testing.T) {
	t.Parallel()
	_, r, st, end := confirmed(t)
	st.Fail(&fakewal.Error{Code: "42704", Message: `publication "pub" does not exist`})
	r.wantSlotError(NoPublication, "read on from "+end, "between "+end+" and 0/2000000", "creating it now does not help")
}
