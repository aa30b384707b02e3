package replication

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/metrics"
)

// Config says which slot to read and how much to hold.
type Config struct {
	// Postgres returns where the slot's database is, anew for each connection, as passwords and
	// certificates are replaced; RuntimeParams are completed.
	Postgres func() *pgconn.Config
	Slot     string
	// Publication is required by pgoutput; messages do not depend on its tables.
	Publication string
	// InboxMessages and InboxBytes bound what is received and not yet taken over by
	// the Sink. One message larger than InboxBytes is still accepted when alone.
	InboxMessages, InboxBytes int
	// ShutdownTimeout bounds the time between the end of Run's ctx and its return.
	ShutdownTimeout time.Duration
	// Started, if set, is called for each stream that has started, before anything of it
	// is delivered. Its error ends the stream. ctx ends when Run's does.
	Started func(ctx context.Context, at Start) (Begun, error)

	startTimeout, drainTimeout time.Duration // other ones than the constants, for tests
}

// memory is what one process remembers over its streams: up to where everything
// was confirmed, and of which server that is true.
type memory struct {
	identity identity
	flushed  pglogrepl.LSN
	pid      string // of the server's process that served the last stream
	// others says that another process was seen to read the slot since the last stream.
	others bool
	// lostWAL says that the server was seen to have lost WAL since the last stream.
	lostWAL bool
}

// skipTo returns the position below which units were confirmed before, or 0 if
// nothing is known of this server: positions of another system, another timeline
// or another slot mean something else. Of a server that has lost WAL everything is
// forgotten for good: what it writes at the lost positions from now on is new.
func (m *memory) skipTo(s server, log *slog.Logger) pglogrepl.LSN {
	switch {
	case m.flushed == 0 || m.identity != s.identity:
		return 0
	case m.flushed > s.walEnd:
		// Only a server that lost WAL it had reported as durable does this.
		log.Error("server's WAL ends before a position that was confirmed; it has lost WAL (fsync off, or restored)",
			slog.String("lsn", m.flushed.String()), slog.String("wal_end", s.walEnd.String()))
		m.flushed, m.lostWAL = 0, true
		return 0
	}
	return m.flushed
}

// Session reads the slot for as long as the process lives: one stream after the
// other, with backoff between. See doc.go for its states.
type Session struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics.Replication
	memory  memory
	current atomic.Pointer[stream]
	born    time.Time
	// accepted is set when a stream has started, by Run. A login that is refused later is perhaps a password that is
	// being replaced, here or on the server, and not a mistake that stays.
	accepted bool
	ticked   atomic.Int64 // when it was last seen at work, nanoseconds since born

	mu      sync.Mutex // guards all below
	state   Status
	waiters map[chan struct{}]pglogrepl.LSN
}

// Status is what a Session does now.
type Status struct {
	State metrics.ReplicationState
	// Since is when it began to.
	Since time.Time
	// Err is why the last stream ended; nil if none has.
	Err error
}

// NewSession makes a Session; Run does the work. Slot must consist of lower case
// letters, digits and underscores.
func NewSession(cfg Config, log *slog.Logger, m *metrics.Replication) (*Session, error) {
	if !slotName.MatchString(cfg.Slot) {
		return nil, &SlotError{
			Slot: cfg.Slot, Problem: "has a name that PostgreSQL does not allow",
			Fix: "use lower case letters, digits and underscores, at most 63",
		}
	}
	s := &Session{cfg: cfg, log: log, metrics: m, born: time.Now(), waiters: make(map[chan struct{}]pglogrepl.LSN)}
	m.LagSeconds.SetFunc(func() float64 { return s.Lag().Seconds() })
	m.Inbox.LimitBytes.Set(float64(cfg.InboxBytes))
	s.enter(metrics.StateConnecting, nil)
	s.Tick()
	return s, nil
}

// Tick notes that Run is at work, or what has to be done before Run or in Started. A stream
// does so with each look at its timers, every ten seconds at least.
func (s *Session) Tick() { s.ticked.Store(int64(time.Since(s.born))) }

// Watch makes each step of connecting with a config count as work of the session, and
// bounds it. It is for what is asked of the server before Run.
func (s *Session) Watch(config *pgconn.Config) { watchConnects(config, s.Tick) }

// Stuck returns for how long there was no sign of work. Half a minute is more than any
// step may take.
func (s *Session) Stuck() time.Duration { return time.Since(s.born) - time.Duration(s.ticked.Load()) }

// Run streams into to until ctx ends; it then delivers what is begun, within
// ShutdownTimeout, and returns nil. It returns an error only if trying again cannot
// help, as Retryable says.
func (s *Session) Run(ctx context.Context, to Sink) error {
	defer func() {
		if s.Status().State != metrics.StateSlotLost { // which says more, and stays
			s.enter(metrics.StateStopped, nil)
		}
	}()
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), ErrAbandon) {
			cancel()
			return
		}
		time.AfterFunc(s.cfg.ShutdownTimeout, cancel)
	})()

	failed := backoff.New(100*time.Millisecond, 2*time.Second)
	var repeats backoff.Repeats
	busy := backoff.New(standbyPauseMin, standbyPauseMax)
	for {
		s.Tick()
		began := time.Now()
		err := s.stream(hard, ctx, to)
		if ctx.Err() != nil {
			if !errors.Is(context.Cause(ctx), ErrAbandon) {
				s.goodbye(err)
			}
			return nil
		}
		var slot *SlotError
		if errors.As(err, &slot) && slot.Cause.Lost() {
			s.enter(metrics.StateSlotLost, err)
		}
		err = explain(err, s.cfg.Postgres().User)
		if !Retryable(err) && (!s.accepted || !loginRefused(err)) {
			return err
		}
		if time.Since(began) > time.Minute {
			failed.Reset()
		}
		wait := failed
		if slotBusy(err) {
			wait = busy
			s.standBy(err)
		} else {
			s.enter(metrics.StateConnecting, err)
			if repeats.Worth(err.Error(), time.Now()) {
				s.log.Warn("stream ended, trying again", slog.Any("error", err))
			}
		}
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

// stream runs one stream to its end and remembers what it has confirmed.
func (s *Session) stream(hard, stop context.Context, to Sink) error {
	st, err := open(stop, s.cfg, &s.memory, hooks{ticked: s.Tick, waiting: s.standBy, reported: s.confirmed}, s.log, s.metrics)
	switch {
	case err == nil:
		s.metrics.Connects.OK.Inc()
	case slotBusy(err): // counted by standBy
		return err
	default:
		s.metrics.Connects.Error.Inc()
		return err
	}
	s.accepted = true
	s.current.Store(st) // first: who sees the state may ask what streams
	s.enter(metrics.StateStreaming, nil)
	s.metrics.Leader.Set(1)

	ended, err := s.started(stop, st)
	if err == nil {
		err = st.run(hard, stop, to)
	}
	s.metrics.Leader.Set(0)
	ended()
	s.Tick()
	if stop.Err() == nil {
		// The server will send again what is not confirmed, so the Sink must be empty
		// before the next stream: what it can still confirm counts, the rest is dropped.
		drain, cancel := context.WithTimeout(hard, cmp.Or(s.cfg.drainTimeout, drainTimeout))
		_ = to.Drain(drain)
		cancel()
	}
	s.current.Store(nil)
	if flushed := st.tracker.Flushed(); s.memory.identity != st.server.identity || flushed > s.memory.flushed {
		s.memory.identity, s.memory.flushed = st.server.identity, flushed
	}
	return err
}

// standBy notes that another process reads the slot.
func (s *Session) standBy(err error) {
	s.Tick()
	// Our own last process may hold the slot for a while after its connection was lost.
	if held, is := errors.AsType[*HeldError](err); is && held.PID != s.memory.pid {
		s.memory.others = true
	}
	if s.Status().State != metrics.StateStandby { // once, not several times a second
		s.metrics.Connects.SlotBusy.Inc()
		s.log.Info("waiting for the slot", slog.Any("error", err))
	}
	s.enter(metrics.StateStandby, err)
}

// drainTimeout bounds the wait for confirms after a stream has failed.
const drainTimeout = 5 * time.Second

// goodbye logs how the last stream ended after a request to stop.
func (s *Session) goodbye(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("stopped before all was confirmed; the rest is sent at the next start", slog.Any("error", err))
		return
	}
	s.log.Info("stopped")
}

func (s *Session) enter(state metrics.ReplicationState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.State != state {
		s.state.State, s.state.Since = state, time.Now()
	}
	s.state.Err = err
	s.metrics.State.Set(state)
}

// Status returns what the session does now.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// WaitConfirmed waits until everything up to lsn is confirmed, or ctx ends.
func (s *Session) WaitConfirmed(ctx context.Context, lsn pglogrepl.LSN) error {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.waiters[c] = lsn
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiters, c)
		s.mu.Unlock()
	}()
	if st := s.current.Load(); st != nil {
		s.confirmed(st.tracker.Flushed())
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// confirmed wakes those that wait for a position up to flushed.
func (s *Session) confirmed(flushed pglogrepl.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, lsn := range s.waiters {
		if lsn <= flushed {
			signal(c)
		}
	}
}

// ServerStopping says that the server refuses new connections because it is
// shutting down. A stream that does not receive, because the Sink takes nothing,
// cannot see that by itself. The server would wait for it without limit.
func (s *Session) ServerStopping() {
	if st := s.current.Load(); st != nil {
		st.serverStopping.Store(true)
		st.urge()
	}
}

// PID returns the server's process that serves the current stream, 0 if there is
// no stream.
func (s *Session) PID() uint32 {
	if st := s.current.Load(); st != nil {
		return st.conn.PID()
	}
	return 0
}

// Address returns where the server of the current stream was reached, empty if there
// is no stream. With several hosts it says which of them is in use.
func (s *Session) Address() string {
	if st := s.current.Load(); st != nil {
		return st.raw.address
	}
	return ""
}

// Lag returns the age of the oldest unconfirmed commit, 0 if there is none.
func (s *Session) Lag() time.Duration {
	if st := s.current.Load(); st != nil {
		if since, ok := st.tracker.Oldest(); ok {
			return max(0, time.Since(since))
		}
	}
	return 0
}

// slotBusy tells whether another process reads the slot.
func slotBusy(err error) bool { return hasCode(err, "55006") }
