package replication

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
)

func TestP26AndO01SessionWaitsForASlotInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) {
		w.answers["START_REPLICATION"] = &fakewal.Answer{
			Error: &fakewal.Error{Code: "55006", Message: `replication slot "pgamqp" is active for PID 7`},
		}
	})
	r := w.run(w.config(), confirmAll())
	r.awaitState(metrics.StateStandby)
	if err := r.Status().Err; err == nil || !strings.Contains(err.Error(), "another process reads this slot") {
		t.Errorf("stands by because of %v", err)
	}
	if r.PID() != 0 {
		t.Errorf("pid %d without a stream", r.PID())
	}
	w.change(func(w *world) { clear(w.answers) })
	st := w.stream()
	r.awaitState(metrics.StateStreaming)
	if r.PID() != uint32(st.Conn.ID) {
		t.Errorf("pid %d, the server's is %d", r.PID(), st.Conn.ID)
	}
	if n := r.counted("pgamqp_postgres_connects_total", "slot_busy"); n < 1 {
		t.Errorf("%v busy slots counted", n)
	}
}

// A waiting daemon keeps its connection and asks for the slot's row, so that the server's
// log does not fill with refused starts.
func TestP26StandbyWaitsOnOneConnectionAndTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.slot.holder = 4711 })
	r := w.run(w.config(), confirmAll())
	r.awaitState(metrics.StateStandby)
	var held *HeldError
	if err := r.Status().Err; !errors.As(err, &held) || held.PID != "4711" {
		t.Errorf("stands by because of %v", err)
	}
	asked := func() (looks int) {
		for _, e := range w.Pending() {
			if q, ok := e.(*fakewal.Query); ok && q.Conn.ID == 1 && strings.Contains(q.SQL, "pg_replication_slots") {
				looks++
			}
		}
		return looks
	}
	r.until("it looks again and again", func() bool { return asked() > 3 })
	w.change(func(w *world) { w.slot.holder = nil })
	if st := w.stream(); st.Conn.ID != 1 {
		t.Errorf("streams on connection %d", st.Conn.ID)
	}
	r.awaitState(metrics.StateStreaming)
	if n := r.counted("pgamqp_postgres_connects_total", "slot_busy"); n != 1 {
		t.Errorf("%v busy slots counted", n)
	}
}

func TestP26StandbyLearnsThatTheSlotIsLostOrGone(t *testing.T) {
	t.Parallel()
	for cause, change := range map[Cause]func(*world){
		Invalidated: func(w *world) { w.slot.walStatus = "lost" },
		Gone:        func(w *world) { w.slot.kind = "" },
	} {
		w := newWorld(t)
		w.change(func(w *world) { w.slot.holder = 4711 })
		r := w.run(w.config(), confirmAll())
		r.awaitState(metrics.StateStandby)
		w.change(change)
		r.wantSlotError(cause, start.String())
	}
}

func TestStandbyStopsAtOnceWhenAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.slot.holder = 4711 })
	r := w.run(w.config(), confirmAll())
	r.awaitState(metrics.StateStandby)
	r.stop()
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

func TestP47ServerInRecoveryIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.change(func(w *world) { w.slot.recovery = "true" })
	r := w.run(w.config(), confirmAll())
	r.until("it knows", func() bool { return errors.Is(r.Status().Err, errStandby) })
	w.change(func(w *world) { w.slot.recovery = "false" })
	w.stream()
	r.awaitState(metrics.StateStreaming)
	if a := r.Address(); !strings.HasPrefix(a, "127.0.0.1:") {
		t.Errorf("streams from %q", a)
	}
}

func TestP55ServerThatIsAwayIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Admit(fakewal.Refuse)
	r := w.run(w.config(), confirmAll())
	for range 3 {
		fakewal.Await[*fakewal.NotServed](t, w.Server)
	}
	w.Admit(fakewal.Serve)
	w.stream()
	r.awaitState(metrics.StateStreaming)
	r.stop()
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if s := r.Status(); s.State != metrics.StateStopped {
		t.Errorf("state %+v", s)
	}
}

func TestRefusedLoginEndsTheSessionWithAWayOut(t *testing.T) {
	t.Parallel()
	s := fakewal.Start(t, fakewal.Config{Startup: func(*fakewal.Conn) *fakewal.Error {
		return fakewal.Fatal("42501", "must be superuser or replication role to start walsender")
	}})
	w := &world{t: t, Server: s}
	if err := w.run(w.config(), confirmAll()).end(); err == nil || !strings.Contains(err.Error(), `alter role "fake" replication`) {
		t.Errorf("ended with %v", err)
	}
}

func TestWaitConfirmedReturnsOnceThePositionIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	r := w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	first, second := emit(l, "first"), emit(l, "second")
	send(st, first, second)
	m := sink.next(t)

	waited := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, lsn := range []pglogrepl.LSN{first.End, second.End} {
		go func() { waited <- r.WaitConfirmed(ctx, lsn) }()
	}
	m.done()
	if err := receive(t, "the first position", waited); err != nil {
		t.Error(err)
	}
	if err := r.WaitConfirmed(ctx, first.End); err != nil { // again: known already
		t.Error(err)
	}
	cancel()
	if err := receive(t, "the second position", waited); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for something unconfirmed: %v", err)
	}
}

func TestO04SessionAtWorkIsNotStuck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run(w.config(), confirmAll())
	st := w.stream()
	st.Keepalive(start+0x100, true)
	st.AwaitFlush(t, start+0x100)
	if d := r.Stuck(); d > 5*time.Second {
		t.Errorf("stuck for %s", d)
	}
}

// Each of several hosts that do not answer is waited for as long as the connection string
// says; all of them together may take longer than a session may show no sign of work.
func TestO04SessionThatTriesOneHostAfterTheOtherIsNotStuck(t *testing.T) {
	t.Parallel()
	first, second := silentHosts(t)
	w := newWorld(t)
	cfg := w.config()
	address, _ := first.Addr().(*net.TCPAddr)
	postgres := cfg.Postgres()
	postgres.Host, postgres.Port = "127.0.0.1", uint16(address.Port)
	postgres.Fallbacks = []*pgconn.FallbackConfig{{Host: "127.0.0.2", Port: postgres.Port}}
	cfg.Postgres = func() *pgconn.Config { return postgres }
	r := w.run(cfg, confirmAll())
	gone := accept(t, first)
	began := time.Now()
	_ = gone.Close()
	accept(t, second) // nobody answers there: the attempt goes on
	if stuck, since := r.Stuck(), time.Since(began); stuck >= since {
		t.Errorf("the second host is tried %s after the first, and the last sign of work is %s old", since, stuck)
	}
}

// pgconn asks a host whose connection breaks while it logs in to cancel what it does, over a
// connection of its own, while it tries the next host.
func TestO04SessionStreamsOverTheConnectionItLoggedInWith(t *testing.T) {
	t.Parallel()
	first, _ := silentHosts(t)
	w := newWorld(t)
	cfg := w.config()
	address, _ := first.Addr().(*net.TCPAddr)
	postgres := cfg.Postgres()
	next := &pgconn.FallbackConfig{Host: postgres.Host, Port: postgres.Port}
	postgres.Host, postgres.Port = "127.0.0.1", uint16(address.Port)
	postgres.Fallbacks = []*pgconn.FallbackConfig{next}
	cancels := make(chan struct{})
	postgres.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, c net.Conn) (net.Conn, error) {
		if c.RemoteAddr().String() != first.Addr().String() {
			<-cancels
		}
		return c, nil
	}
	cfg.Postgres = func() *pgconn.Config { return postgres }
	r := w.run(cfg, confirmAll())
	_ = accept(t, first).Close()
	accept(t, first) // the request to cancel
	close(cancels)
	w.stream()
	r.awaitState(metrics.StateStreaming)
	if want := net.JoinHostPort(next.Host, strconv.Itoa(int(next.Port))); r.Address() != want {
		t.Errorf("streams from %s, want %s", r.Address(), want)
	}
}

// silentHosts returns listeners at one port of two addresses, whose connections nobody reads.
func silentHosts(t *testing.T) (first, second net.Listener) {
	t.Helper()
	var config net.ListenConfig
	for {
		first, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(first.Addr().String())
		second, err := config.Listen(t.Context(), "tcp", "127.0.0.2:"+port)
		if err == nil {
			t.Cleanup(func() { _, _ = first.Close(), second.Close() })
			return first, second
		}
		_ = first.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// accept waits for a connection, and keeps it open until the test ends.
func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestMemoryHoldsForOneHistoryOnly(t *testing.T) {
	same := identity{systemID: "71", timeline: 1, slot: "pgamqp"}
	for name, c := range map[string]struct {
		identity identity
		flushed  pglogrepl.LSN
		want     pglogrepl.LSN
	}{
		"the same server":  {same, 0x1000, 0x1000},
		"exactly its end":  {same, 0x2000, 0x2000},
		"a server behind":  {same, 0x2001, 0},
		"nothing yet":      {same, 0, 0},
		"another system":   {identity{"72", 1, "pgamqp"}, 0x1000, 0},
		"another timeline": {identity{"71", 2, "pgamqp"}, 0x1000, 0},
		"another slot":     {identity{"71", 1, "other"}, 0x1000, 0},
	} {
		m := memory{identity: c.identity, flushed: c.flushed}
		if got := m.skipTo(server{identity: same, walEnd: 0x2000}, quiet()); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// reconnected lets a session confirm a message and a transaction, changes the
// server, and has both sent again, followed by a new one.
func reconnected(t *testing.T, change func(*world)) (r *running, sink *fakeSink, l *fakewal.Log, st *fakewal.Stream) {
	t.Helper()
	w := newWorld(t)
	sink = confirmAll()
	r = w.run(w.config(), sink)
	st = w.stream()
	l = fakewal.NewLog(start)
	emit(l, "lone")
	tx := l.Begin()
	tx.Emit("amqp", []byte("one"))
	tx.Emit("amqp", []byte("two"))
	last := tx.Commit()
	send(st, l.From(0)...)
	for range 3 {
		sink.next(t)
	}
	st.AwaitFlush(t, last.End)
	w.change(change)
	st.Conn.Drop()
	st = w.stream()
	emit(l, "new")
	send(st, l.From(start)...)
	return r, sink, l, st
}

func TestP33ConfirmedUnitsThatComeAgainAreDropped(t *testing.T) {
	t.Parallel()
	r, sink, l, st := reconnected(t, func(*world) {})
	if got := string(sink.next(t).Content); got != "new" {
		t.Errorf("got %q", got)
	}
	st.AwaitFlush(t, l.End())
	sink.nothing(t)
	if n := r.counted("pgamqp_dropped_duplicates_total", ""); n != 2 {
		t.Errorf("%v dropped units counted", n)
	}
	for _, s := range st.Statuses() {
		if s.Flush < start || s.Flush > l.End() {
			t.Errorf("reported %v", s)
		}
	}
}

// What the broker confirms after a stream has failed counts: it does not come twice.
func TestConfirmsBetweenTwoStreamsCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	sink.available = true
	cfg := w.config()
	cfg.drainTimeout = limit
	w.run(cfg, sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	u := emit(l, "confirmed late")
	send(st, u)
	m := sink.next(t)
	st.Conn.Drop()
	<-time.After(300 * time.Millisecond) // ample time to make the mistake
	for _, e := range w.Pending() {
		if st, ok := e.(*fakewal.Stream); ok {
			t.Errorf("streams though the sink is not empty: %v", st)
		}
	}
	m.done()
	st = w.stream()
	send(st, u)
	st.AwaitFlush(t, u.End)
	sink.nothing(t)
}

// The server learns again that it need not keep them, without waiting for others.
func TestDroppedUnitsAreReportedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sink := newSink()
	w.run(w.config(), sink)
	st := w.stream()
	l := fakewal.NewLog(start)
	for range 2 {
		tx := l.Begin()
		tx.Emit("amqp", []byte("in a transaction"))
		tx.Commit()
	}
	last := emit(l, "lone")
	send(st, l.From(0)...)
	for range 3 {
		sink.next(t).done()
	}
	st.AwaitFlush(t, last.End)
	for n, u := range l.From(0) { // as many of them as the server likes
		st.Conn.Drop()
		st = w.stream()
		send(st, l.From(0)[:n+1]...)
		st.AwaitFlush(t, u.End)
	}
	sink.nothing(t)
}

func TestP08AndP50UnitsOfAnotherHistoryAreNotDropped(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"another timeline": func(w *world) {
			w.SetSystem(system(2))
			w.answers["TIMELINE_HISTORY"] = &fakewal.Answer{Columns: []string{"filename", "content"}, Rows: [][]any{{"2", "1\t0/1500001\tno\n"}}}
		},
		"a server that has lost WAL": func(w *world) {
			w.SetSystem(fakewal.System{ID: "71", Timeline: 1, Position: start + 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, sink, l, st := reconnected(t, change)
			for _, want := range []string{"lone", "one", "two", "new"} {
				if got := string(sink.next(t).Content); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			st.AwaitFlush(t, l.End())
		})
	}
}

// Once a server has been seen to have lost WAL, what it writes later at the lost
// positions is new, also after another reconnect.
func TestLostWALIsForgottenForGood(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*world){
		"streamed since": func(*world) {},
		"could not start since": func(w *world) {
			w.answers["START_REPLICATION"] = &fakewal.Answer{Error: &fakewal.Error{Code: "55006", Message: "busy"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := confirmAll()
			r := w.run(w.config(), sink)
			st := w.stream()
			l := fakewal.NewLog(start)
			old := emit(l, "old, and a long text, so that its end lies behind that of new messages")
			send(st, old)
			sink.next(t)
			st.AwaitFlush(t, old.End)

			// It crashed and is back with less, and has then written anew.
			w.SetSystem(fakewal.System{ID: "71", Timeline: 1, Position: start + 1})
			w.change(fail)
			st.Conn.Drop()
			fakewal.Await[*fakewal.Closed](t, w.Server)
			if name == "streamed since" {
				w.stream().Conn.Drop()
			} else {
				r.awaitState(metrics.StateStandby)
			}
			w.SetSystem(system(1))
			w.change(func(w *world) { clear(w.answers) })
			again := fakewal.NewLog(start)
			u := emit(again, "new")
			if u.End >= old.End {
				t.Fatal("the new message must lie within the lost WAL")
			}
			st = w.stream()
			send(st, u)
			if got := string(sink.next(t).Content); got != "new" {
				t.Errorf("got %q", got)
			}
			st.AwaitFlush(t, u.End)
		})
	}
}
