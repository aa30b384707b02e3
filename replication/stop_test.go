package replication

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

// goodbye waits for the client's CopyDone, and returns what was reported before.
func goodbye(t *testing.T, w *world, st *fakewal.Stream) []fakewal.Status {
	t.Helper()
	if e := fakewal.Await[*fakewal.CopyDone](t, w.Server); e.Stream != st {
		t.Errorf("copy done of %v", e.Stream)
	}
	return st.Statuses()
}

func TestP56StopReportsEverythingBeforeItSaysGoodbye(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run(w.config(), confirmAll())
	st := w.stream()
	l := fakewal.NewLog(start)
	u := emit(l, "last words")
	send(st, u)
	st.AwaitFlush(t, u.End)
	r.stop()
	if all := goodbye(t, w, st); all[len(all)-1].Flush != u.End {
		t.Errorf("last report %v, want %s", all[len(all)-1], u.End)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if e := fakewal.Await[*fakewal.Closed](t, w.Server); !e.Clean {
		t.Errorf("left without a word: %v", e)
	}
}

// A transaction that has begun is read to its end, or all of it would come again.
func TestStopInATransactionFinishesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.available = true
	r := w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	tx := l.Begin()
	tx.Emit("amqp", []byte("one"))
	tx.Emit("amqp", []byte("two"))
	u := tx.Commit()
	st.Send(u.Frames[:2]...)
	one := sink.next(t)
	r.stopAndSee()
	st.Keepalive(u.Start, true) // it goes on, and reports
	st.AwaitFlush(t, start)

	// The next transaction follows at once. It is left alone.
	tx = l.Begin()
	tx.Emit("amqp", []byte("not begun"))
	next := tx.Commit()
	st.Send(append(slices.Clone(u.Frames[2:]), next.Frames[:2]...)...)
	sink.next(t).done()
	one.done()
	all := goodbye(t, w, st)
	if got := all[len(all)-1].Flush; got != u.End {
		t.Errorf("last report %s, want the transaction's end %s", got, u.End)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	sink.nothing(t)
}

func TestStopWaitsForWhatTheBrokerStillConfirms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.available = true
	r := w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	first, second := emit(l, "first"), emit(l, "second")
	send(st, first, second)
	a, b := sink.next(t), sink.next(t)
	st.AwaitFlush(t, start)
	r.stop()
	a.done()
	st.AwaitFlush(t, first.End) // reports go on meanwhile
	b.done()
	st.AwaitFlush(t, second.End)
	goodbye(t, w, st)
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestO02StopWithTheBrokerAwayReportsWhatIsConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink() // Drain gives up at once
	r := w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	first, second := emit(l, "first"), emit(l, "second")
	send(st, first, second)
	sink.next(t).done()
	late := sink.next(t)
	began := time.Now()
	r.stop()
	all := goodbye(t, w, st)
	if err := r.end(); err != nil || time.Since(began) > limit/2 {
		t.Errorf("ended after %s: %v", time.Since(began), err)
	}
	late.done()
	if got := all[len(all)-1].Flush; got != first.End {
		t.Errorf("last report %s, want %s", got, first.End)
	}
}

func TestStopWhileTheSinkBlocksEndsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.gate = make(chan struct{}) // never opens
	cfg := w.config()
	cfg.InboxMessages, cfg.ShutdownTimeout = 2, 300*time.Millisecond
	r := w.run(cfg, sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	for range 10 { // more than the inbox holds: the owner is held up as well
		send(st, emit(l, "stuck"))
	}
	st.AwaitFlush(t, start)
	began := time.Now()
	r.stop()
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < cfg.ShutdownTimeout {
		t.Errorf("ended after %s, the limit is %s", took, cfg.ShutdownTimeout)
	}
	for _, s := range st.Statuses() {
		if s.Flush != start {
			t.Errorf("reported %v", s)
		}
	}
}

func TestStopInAnEndlessTransactionEndsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.ShutdownTimeout = 200 * time.Millisecond
	sink := confirmAll()
	r := w.run(cfg, sink)
	st := w.stream()
	tx := transaction(start+0x100, start+0x200, start+0x230)
	st.Send(tx[:2]...)
	sink.next(t)
	r.stop()
	if err := r.end(); err != nil {
		t.Error(err)
	}
	for _, s := range st.Statuses() {
		if s.Flush != start {
			t.Errorf("reported %v inside the transaction", s)
		}
	}
}

func TestStopWithoutAStreamIsQuick(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*world){
		"a server that is away":         func(w *world) { w.Admit(fakewal.Refuse) },
		"a server that does not answer": func(w *world) { w.Admit(fakewal.Ignore) },
		"a slot in use": func(w *world) {
			w.answers["START_REPLICATION"] = &fakewal.Answer{Error: &fakewal.Error{Code: "55006", Message: "busy"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			prepare(w)
			r := w.run(w.config(), confirmAll())
			if name == "a slot in use" {
				r.awaitState(metrics.StateStandby)
			} else {
				fakewal.Await[*fakewal.NotServed](t, w.Server)
			}
			began := time.Now()
			r.stop()
			if err := r.end(); err != nil || time.Since(began) > limit/2 {
				t.Errorf("ended after %s: %v", time.Since(began), err)
			}
		})
	}
}

// The server may break off while it is being left.
func TestStopSurvivesABreakingConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.available = true
	r := w.run(w.config(), sink)
	st := w.stream()
	send(st, emit(fakewal.NewLog(start), "in flight"))
	m := sink.next(t)
	r.stop()
	st.AwaitFlush(t, start)
	st.Conn.Reset()
	m.done()
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

// A stream that a message could not be handed over from is no stream.
func TestSinkThatFailsEndsTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := confirmAll()
	r := w.run(w.config(), &failingSink{fakeSink: good, failures: 1})
	st := w.stream()
	l := fakewal.NewLog(start)
	u := emit(l, "fails once")
	send(st, u)
	st = w.stream()
	send(st, u)
	if got := good.next(t); got.LSN != u.End {
		t.Errorf("got %s", got.LSN)
	}
	st.AwaitFlush(t, u.End)
	if err := r.Status().Err; err != nil {
		t.Errorf("streaming with %v", err)
	}
}

// What wakes the owner, the stop itself among it, may do so late. The last report counts only when
// the server has answered.
func TestLateWakeUpDoesNotEndTheGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0x1000, time.Minute, newSink())
		r.farewell = func() {
			<-time.After(time.Second) // until the owner waits for the answer
			r.stream.urge()
			<-time.After(time.Second)
		}
		r.stop()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
}
