package replication

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// With nothing confirmed the slot's own position is reported. Zero would be taken
// for everything that was received.
func TestP06ReportIsNeverZero(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	send(st, emit(l, "never confirmed"))
	sink.next(t)
	for range 3 {
		st.Keepalive(l.End(), true)
		s := fakewal.Await[*fakewal.Status](t, w.Server)
		if s.Flush != start || s.Apply != start || s.Write < start || s.Write > l.End() {
			t.Errorf("reported %v, want flush %s", s, start)
		}
	}
}

func TestP07AndP40AndP41StreamIsStartedAtTheSlotsPositionWithTheLeastProtocol(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config()
	cfg.Publication = `it's "odd"`
	w.run(cfg, confirmAll())
	st := w.stream()
	if st.Slot != "pgamqp" || st.From != 0 {
		t.Errorf("started slot %q from %s; only 0/0 is the slot's position", st.Slot, st.From)
	}
	want := map[string]string{"proto_version": "1", "publication_names": `"it's ""odd"""`, "messages": "true"}
	if len(st.Options) != len(want) {
		t.Errorf("options %v", st.Options)
	}
	for name, value := range want {
		if st.Options[name] != value {
			t.Errorf("option %s is %q, want %q", name, st.Options[name], value)
		}
	}
	if p := st.Conn.Params; p["replication"] != "database" || p["application_name"] != "pgamqp" {
		t.Errorf("start-up with %v", p)
	}
}

func TestMessagesReachTheSinkInStreamOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := confirmAll()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	tx := l.Begin()
	one := tx.Emit("amqp", []byte("one"))
	lone := emit(l, "lone")
	two := tx.Emit("other", []byte{0, 0xff})
	u := tx.Commit()
	send(st, lone)
	st.Send(u.Frames...)

	for i, want := range []decoder.Message{
		{LSN: lone.End, Prefix: "amqp", Content: []byte("lone")},
		{LSN: one, Prefix: "amqp", Content: []byte("one"), Transactional: true},
		{LSN: two, Prefix: "other", Content: []byte{0, 0xff}, Transactional: true},
	} {
		got := sink.next(t)
		if got.LSN != want.LSN || got.Prefix != want.Prefix || string(got.Content) != string(want.Content) ||
			got.Transactional != want.Transactional || (got.XID != 0) != want.Transactional {
			t.Errorf("message %d is %+v, want %+v", i, got.Message, want)
		}
		if id := "71-1-" + want.LSN.String(); got.ID != id {
			t.Errorf("message %d has id %s, want %s", i, got.ID, id)
		}
	}
	st.AwaitFlush(t, u.End)
}

// Rows and tables that were emptied are messages of their transaction, between the others.
func TestChangesOfRowsReachTheSinkInStreamOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	tx := l.Begin()
	tx.Emit("amqp", []byte("first"))
	tx.Emit("amqp", []byte("last"))
	u := tx.Commit()
	st.Send(u.Frames[:2]...)
	st.Send(fakewal.Relation(1, "s", "t", "c"), fakewal.Relation(2, "s", "u"), fakewal.Insert(start+7, 1, []byte("v")), fakewal.Truncate(start+8, 1, 2))
	st.Send(u.Frames[2:]...)

	var got []taken
	for range 5 {
		got = append(got, sink.next(t))
	}
	for i, want := range []string{"first", "I t 1 -1", "T t 2 -2", "T u 3 -3", "last"} {
		m := got[i]
		said := string(m.Content)
		if c := m.Change; c != nil {
			said = fmt.Sprintf("%c %s %d %s", c.Op, c.Relation.Name, c.Ordinal, m.ID[strings.LastIndex(m.ID, "-"):])
			if m.LSN == 0 || m.Commit == 0 || !m.Transactional {
				t.Errorf("%+v", m.Message)
			}
		}
		if said != want {
			t.Errorf("message %d is %q, want %q", i, said, want)
		}
	}
	for i, m := range got {
		if i > 0 { // the first one last
			m.done()
		}
	}
	st.Keepalive(l.End(), true)
	if s := fakewal.Await[*fakewal.Status](t, w.Server); s.Flush != start {
		t.Errorf("reported %s while a message of the transaction is not done", s.Flush)
	}
	got[0].done()
	st.AwaitFlush(t, u.End)
}

// The identity of what was written before a promotion does not change with it.
func TestMessagesOfAnOldTimelineKeepTheirIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.SetSystem(system(3))
	w.change(func(w *world) {
		w.answers["TIMELINE_HISTORY 3"] = &fakewal.Answer{
			Columns: []string{"filename", "content"},
			Rows:    [][]any{{"00000003.history", "1\t0/1500100\tno\n2\t0/1500200\tno\n"}},
		}
	})
	sink := confirmAll()
	w.run(w.config(), sink)
	st := w.stream()
	for _, c := range []struct {
		lsn  pglogrepl.LSN
		want string
	}{{0x1500100, "71-1-0/1500100"}, {0x1500200, "71-2-0/1500200"}, {0x1500208, "71-3-0/1500208"}} {
		st.Send(fakewal.Message(c.lsn, false, "amqp", nil))
		if got := sink.next(t).ID; got != c.want {
			t.Errorf("id %s, want %s", got, c.want)
		}
	}
}

// ends are all the ways in which a stream can break that are worth another try.
func ends() map[string]func(*fakewal.Stream) {
	return map[string]func(*fakewal.Stream){
		// An ERROR leaves the connection open, and the server deaf for status messages.
		"an error that is not fatal": func(st *fakewal.Stream) {
			st.Fail(&fakewal.Error{Code: "53200", Message: "out of memory"})
		},
		"terminated": func(st *fakewal.Stream) {
			st.Fail(fakewal.Fatal("57P01", "terminating connection due to administrator command"))
		},
		"copy done":   func(st *fakewal.Stream) { st.CopyDone() },
		"shutdown":    func(st *fakewal.Stream) { st.Shutdown() },
		"end of file": func(st *fakewal.Stream) { st.Conn.Drop() },
		"reset":       func(st *fakewal.Stream) { st.Conn.Reset() },
		"half a frame": func(st *fakewal.Stream) {
			st.HalfFrame(fakewal.Message(1, false, "amqp", make([]byte, 99)))
			st.Conn.Drop()
		},
		"no sense at all": func(st *fakewal.Stream) { st.Conn.Write([]byte("?\x00\x00\x00\x04")) },
	}
}

func TestBrokenStreamIsStartedAnew(t *testing.T) {
	t.Parallel()
	for name, end := range ends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := newSink()
			r := w.run(w.config(), sink)
			st := w.stream()
			l := fakewal.NewLog(start)
			first, second := emit(l, "first"), emit(l, "second")
			send(st, first, second)
			sink.next(t).done()
			st.AwaitFlush(t, first.End)
			sink.next(t)
			end(st)

			st = w.stream() // with nothing remembered by the server
			send(st, l.From(start)...)
			if got := sink.next(t); got.LSN != second.End {
				t.Fatalf("got %s again; only %s was not confirmed", got.LSN, second.End)
			} else {
				got.done()
			}
			st.AwaitFlush(t, second.End)
			sink.nothing(t)
			if n := r.counted("pgamqp_dropped_duplicates_total", ""); n != 1 {
				t.Errorf("%v duplicates dropped", n)
			}
		})
	}
}

func TestP22NoticesDoNotEndTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := confirmAll()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	st.Notice(&fakewal.Error{Code: "55000", Message: `skipped loading publication "pub"`})
	u := emit(l, "behind the notice")
	send(st, u)
	st.AwaitFlush(t, u.End)
}

// A frame that cannot be read must not be passed over.
func TestUnreadableFrameEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"a frame of protocol 2": append(append([]byte{'w'}, make([]byte, 24)...), 'S', 0, 0, 0, 1, 1),
		"a short frame":         append(append([]byte{'w'}, make([]byte, 24)...), 'C', 0),
		"no frame":              {'w', 0},
		"an unknown message":    {'z'},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.run(w.config(), confirmAll())
			w.stream().CopyData(data)
			var bad *decoder.FrameError
			if err := r.end(); !errors.As(err, &bad) || Retryable(err) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestErrorThatStaysEndsTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run(w.config(), confirmAll())
	w.stream().Fail(&fakewal.Error{Code: "XX000", Message: "invalid memory alloc request size 1073741824"})
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "poisoned slot") {
		t.Errorf("ended with %v", err)
	}
}

func TestH04PoisonedSlotEndsTheSessionWithAWayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run(w.config(), confirmAll())
	w.stream().Fail(&fakewal.Error{Code: "XX000", Message: "invalid memory alloc request size 1073741824"})
	if err := r.end(); err == nil || Retryable(err) || !strings.Contains(err.Error(), "docs/operations.md, poisoned slot") {
		t.Errorf("ended with %v", err)
	}
}

// PostgreSQL 14 sends every transaction, also those that have nothing for us.
func TestP54aEmptyTransactionsAreConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	var last fakewal.Unit
	for range 5 {
		last = l.Begin().Commit()
		send(st, last)
	}
	st.AwaitFlush(t, last.End)
	sink.nothing(t)
}

// Units that touch each other, confirmed in all orders: what is reported is always
// the end of a unit, never one more, never one that leaves something behind.
func TestP04ReportsAreExactEndsInWhateverOrderMessagesAreConfirmed(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := newSink()
			w.run(w.config(), sink)
			st := w.stream()
			l := fakewal.NewLog(start)
			units := []fakewal.Unit{emit(l, "a"), emit(l, "b"), emit(l, "c")}
			send(st, units...)
			messages := []taken{sink.next(t), sink.next(t), sink.next(t)}
			st.AwaitFlush(t, start)
			wants := []pglogrepl.LSN{start}
			for i, n := range order {
				messages[n].done()
				want := start
				for j := 0; j < len(units) && slices.Contains(order[:i+1], j); j++ {
					want = units[j].End
				}
				if want != wants[len(wants)-1] {
					wants = append(wants, want)
				}
				st.Keepalive(start, true)
				st.AwaitFlush(t, want)
			}
			var got []pglogrepl.LSN
			for _, s := range st.Statuses() {
				got = append(got, s.Flush)
			}
			if got = slices.Compact(got); !slices.Equal(got, wants) {
				t.Errorf("reported %v, want %v", got, wants)
			}
		})
	}
}

func TestLagIsTheAgeOfTheOldestUnconfirmedCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	r := w.run(w.config(), sink)
	st := w.stream()
	if lag := r.Lag().Seconds(); lag != 0 {
		t.Errorf("lag %v with nothing received", lag)
	}
	old := time.Now().Add(-time.Hour)
	st.Send(fakewal.Begin(7, start+0x100, old), fakewal.Message(start+0x80, true, "amqp", nil), fakewal.Commit(start+0x100, start+0x130, old))
	m := sink.next(t)
	if lag := r.Lag().Seconds(); lag < 3599 || lag > 3660 {
		t.Errorf("lag %v, want an hour", lag)
	}
	m.done()
	st.AwaitFlush(t, start+0x130)
	if lag := r.Lag().Seconds(); lag != 0 {
		t.Errorf("lag %v with everything confirmed", lag)
	}
}
