package replication

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

// TestStartedComesBeforeTheFirstMessage and its end before the Sink is drained: what
// depends on the stream never outlives it.
func TestStartedComesBeforeTheFirstMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	cfg := w.config()
	starts, ends := make(chan Start), make(chan struct{})
	refuse := true
	cfg.Started = func(context.Context, Start) (Begun, error) {
		if refuse {
			refuse = false
			return Begun{}, errors.New("not now")
		}
		return Begun{}, nil
	}
	plain := cfg.Started
	cfg.Started = func(ctx context.Context, at Start) (Begun, error) {
		starts <- at
		begun, err := plain(ctx, at)
		begun.Ended = func() { ends <- struct{}{} }
		return begun, err
	}
	r := w.run(cfg, sink)
	first := w.stream()
	send(first, emit(fakewal.NewLog(start), "m"))
	if at := receive(t, "the first start", starts); at.Confirmed != start || at.Remembered != start || at.PID != uint32(first.Conn.ID) || at.History != "71-1" {
		t.Errorf("started at %+v", at)
	}
	st := w.stream() // the first one was given up
	if len(sink.arrived) > 0 {
		t.Error("a stream that was refused has delivered")
	}
	send(st, emit(fakewal.NewLog(start), "m"))
	receive(t, "the second start", starts)
	sink.next(t)
	r.stop()
	receive(t, "the end", ends)
}

// TestForgetMakesTheStreamDeliverAgain what was confirmed before, because somebody else may
// have relied on that it is not.
func TestForgetMakesTheStreamDeliverAgain(t *testing.T) {
	t.Parallel()
	for _, forget := range []bool{false, true} {
		w := newWorld(t)
		sink := confirmAll()
		cfg := w.config()
		remembered := make(chan pglogrepl.LSN, 10)
		cfg.Started = func(_ context.Context, at Start) (Begun, error) {
			remembered <- at.Remembered
			return Begun{Forget: forget}, nil
		}
		w.run(cfg, sink)
		st := w.stream()
		l := fakewal.NewLog(start)
		unit := emit(l, "m")
		send(st, unit)
		sink.next(t)
		st.AwaitFlush(t, unit.End)
		w.DropAll() // the slot's position is what it was
		st = w.stream()
		later := emit(l, "later")
		send(st, unit, later)
		receive(t, "the first start", remembered)
		if got := receive(t, "the second start", remembered); got != unit.End {
			t.Errorf("remembers %s, want %s", got, unit.End)
		}
		if got := string(sink.next(t).Content); (got == "m") != forget {
			t.Errorf("forget is %v, and %q comes first", forget, got)
		}
	}
}

// TestAbandonedSessionEndsAtOnce with messages that are not confirmed.
func TestAbandonedSessionEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.available = true // Drain would wait
	s, err := NewSession(w.config(), quiet(), freshMetrics())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, sink) }()
	unit := emit(fakewal.NewLog(start), "m")
	send(w.stream(), unit)
	sink.next(t)
	if got := s.Received(); got != unit.End {
		t.Errorf("received up to %s, want %s", got, unit.End)
	}
	if got := s.Confirmed(); got != start {
		t.Errorf("confirmed up to %s, want %s", got, start)
	}
	cancel(ErrAbandon)
	if err := receive(t, "the end of the session", ended); err != nil {
		t.Error(err)
	}
	if s.Confirmed() != 0 || s.Received() != 0 {
		t.Error("a session without a stream has positions")
	}
}

// TestStartedTellsWhatHappenedBetweenTwoStreams as far as it can be seen: another reader, a
// position that another one has confirmed, WAL that was lost.
func TestStartedTellsWhatHappenedBetweenTwoStreams(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		between         func(w *world, last uint32, end pglogrepl.LSN)
		waits           bool
		others, lostWAL bool
	}{
		"nothing":             {between: func(*world, uint32, pglogrepl.LSN) {}},
		"another reads":       {between: func(w *world, _ uint32, _ pglogrepl.LSN) { w.slot.holder = 4711 }, waits: true, others: true},
		"our own last reader": {between: func(w *world, last uint32, _ pglogrepl.LSN) { w.slot.holder = int(last) }, waits: true},
		"another has read":    {between: func(w *world, _ uint32, end pglogrepl.LSN) { w.slot.confirmed = (end + 1).String() }, others: true},
		"our own report":      {between: func(w *world, _ uint32, end pglogrepl.LSN) { w.slot.confirmed = end.String() }},
		"WAL is lost": {between: func(w *world, _ uint32, _ pglogrepl.LSN) {
			w.SetSystem(fakewal.System{ID: "71", Timeline: 1, Position: start + 1})
		}, lostWAL: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := confirmAll()
			cfg := w.config()
			starts := make(chan Start, 10)
			cfg.Started = func(_ context.Context, at Start) (Begun, error) {
				starts <- at
				return Begun{}, nil
			}
			r := w.run(cfg, sink)
			st := w.stream()
			if at := receive(t, "the first start", starts); at.Others || at.LostWAL {
				t.Errorf("the first one: %+v", at)
			}
			unit := emit(fakewal.NewLog(start), "m")
			send(st, unit)
			sink.next(t)
			st.AwaitFlush(t, unit.End)
			w.change(func(w *world) { c.between(w, uint32(st.Conn.ID), unit.End) })
			st.Conn.Drop()
			if c.waits {
				r.awaitState(metrics.StateStandby)
				w.change(func(w *world) { w.slot.holder = nil })
			}
			if at := receive(t, "the second start", starts); at.Others != c.others || at.LostWAL != c.lostWAL {
				t.Errorf("the second one: %+v", at)
			}
			w.stream().Conn.Drop()
			if at := receive(t, "the third start", starts); at.Others || at.LostWAL {
				t.Errorf("the third one still says so: %+v", at)
			}
		})
	}
}
