package replication

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/metrics"
)

// Sink takes messages in stream order.
type Sink interface {
	// Publish takes m over, and blocks for back-pressure. done is called at most
	// once, from any goroutine, only when m is safe, never after an error. The Sink
	// may keep m's content.
	Publish(ctx context.Context, m decoder.Message, done func()) error
	// Drain waits until all that was taken over is safe. It gives up when ctx ends,
	// or when it sees that waiting is in vain; then it forgets the rest, whose done
	// is never called. Publish is not called meanwhile.
	Drain(ctx context.Context) error
}

// stream is one connection that streams from the slot. Its own goroutine is the
// only user of the connection: it receives, decodes and reports. A second one, the
// deliverer, calls the Sink. Any error ends the stream; the next one is built anew
// and the server resends what was not confirmed.
type stream struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics.Replication

	conn    *pgconn.PgConn
	raw     *wakeableConn
	server  server
	decoder *decoder.Decoder
	tracker *Tracker
	inbox   *inbox
	report  reporter
	hooks   hooks
	woken   chan struct{} // capacity 1: wake-ups while the owner does not read
	// stopping asks the owner to end at the next unit's end.
	stopping atomic.Bool
	// serverStopping says that the server is known to be shutting down.
	serverStopping atomic.Bool

	// skipTo is the position up to which everything was confirmed in this process
	// before: after a restart the server may have forgotten that (up to version 16
	// after any restart, later after a crash), and sends it again.
	skipTo   pglogrepl.LSN
	unit     *Unit // of the open transaction; nil outside, or while it is dropped
	messages int   // in the open transaction
}

// hooks tell the Session what goes on; they must not block.
type hooks struct {
	ticked   func()              // the owner is alive
	waiting  func(error)         // another process reads the slot
	reported func(pglogrepl.LSN) // a position was reported
}

// open connects, checks the slot and starts streaming. remembered is what an
// earlier stream has confirmed; it is used only if the server is the same.
func open(ctx context.Context, cfg Config, remembered *memory, h hooks, log *slog.Logger, m *metrics.Replication) (*stream, error) {
	onNotice := func(_ *pgconn.PgConn, n *pgconn.Notice) {
		// Version 18 says so when it passes over a missing publication: rows get lost.
		log.Error("server warns", slog.String("severity", n.Severity), slog.String("code", n.Code), slog.String("message", n.Message))
	}
	conn, raw, err := dial(ctx, cfg.Postgres(), onNotice, h.ticked)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", ExplainTLS(err))
	}
	s := &stream{
		cfg: cfg, log: log, metrics: m, conn: conn, raw: raw, hooks: h,
		inbox: newInbox(cfg.InboxMessages, cfg.InboxBytes),
		woken: make(chan struct{}, 1),
	}
	if err := s.start(ctx, remembered); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// startTimeout bounds the questions between the login and the stream, each time that some
// are asked. It is less than a session may show no sign of work.
const startTimeout = 15 * time.Second

func (s *stream) start(ctx context.Context, remembered *memory) error {
	err := s.inTime(ctx, func(ctx context.Context) (err error) {
		s.server, err = inspect(ctx, s.conn, s.cfg.Slot, s.cfg.Publication, remembered)
		return err
	})
	if err != nil {
		return err
	}
	if remembered.identity == (identity{}) {
		remembered.identity = s.server.identity
	}
	if err := s.standBy(ctx, remembered); err != nil { // for as long as it takes
		return err
	}
	s.decoder = decoder.New(s.server.source)
	s.skipTo = remembered.skipTo(s.server, s.log)
	s.tracker = NewTracker(s.server.confirmed, s.wake)
	if err := s.inTime(ctx, s.startReplication); err != nil {
		if hasCode(err, undefinedObject) { // dropped since it was looked at
			return goneError(s.server, s.cfg.Slot, remembered)
		}
		return fmt.Errorf("start replication from slot %q: %w", s.cfg.Slot, err)
	}
	s.report.begin(s.server.timeout, time.Now())
	if err := s.keepReporting(time.Now()); err != nil { // sets the first deadline
		return err
	}
	s.log.Info("streaming", slog.String("slot", s.cfg.Slot), slog.String("lsn", s.server.confirmed.String()),
		slog.String("system_id", s.server.identity.systemID), slog.Int("timeline", int(s.server.identity.timeline)))
	return nil
}

// inTime bounds what is asked between the login and the stream: a server may freeze
// right after the login.
func (s *stream) inTime(ctx context.Context, ask func(context.Context) error) error {
	s.hooks.ticked()
	limited, cancel := context.WithTimeout(ctx, cmp.Or(s.cfg.startTimeout, startTimeout))
	defer cancel()
	err := ask(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return err
}

// startReplication starts at 0/0, which means at the slot's confirmed position. Any
// other start could skip what lies between.
func (s *stream) startReplication(ctx context.Context) error {
	return pglogrepl.StartReplication(ctx, s.conn, s.cfg.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode:       pglogrepl.LogicalReplication,
		PluginArgs: PluginArgs(s.cfg.Publication),
	})
}

// PluginArgs are the options of pgoutput that package decoder understands the stream of.
func PluginArgs(publication string) []string {
	return []string{
		"proto_version '1'",
		"publication_names " + quoteLiteral(quoteIdent(publication)),
		"messages 'true'",
	}
}

// run receives until stop ends, then finishes the open transaction, delivers and
// drains what was received, reports it and says goodbye to the server; nil is
// returned then. Any other end is an error. The end of ctx ends it at once.
func (s *stream) run(ctx, stop context.Context, to Sink) error {
	defer s.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, s.urge)()
	defer context.AfterFunc(stop, func() {
		s.stopping.Store(true)
		s.urge()
	})()

	delivered := make(chan error, 1)
	go func() { // deliverer
		err := s.deliver(ctx, to)
		if err != nil {
			cancel(&SinkError{err})
		}
		delivered <- err
	}()
	err := s.receive(ctx)
	if err != nil {
		cancel(err)
	}
	s.inbox.close()
	if err != nil {
		<-delivered //nolint:errcheck // an error of the Sink is the cause of ours already
		return err
	}
	err = s.finish(ctx, delivered, to)
	cancel(err)
	return err
}

// wake makes the owner look at the tracker. Thousands of confirmations before it
// does so cost one wake-up.
func (s *stream) wake() {
	if s.report.pending.CompareAndSwap(false, true) {
		s.urge()
	}
}

// urge makes the owner look at everything, now.
func (s *stream) urge() {
	s.raw.wake()
	signal(s.woken)
}

// receive reads frames until the stream is to stop and no transaction is open.
func (s *stream) receive(ctx context.Context) error {
	for !s.stopping.Load() || s.decoder.InTransaction() {
		message, err := s.conn.ReceiveMessage(context.Background()) // interrupted by urge
		switch {
		case err == nil:
			err = s.handle(ctx, message)
		case pgconn.Timeout(err):
			s.raw.rest()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = s.keepReporting(time.Now())
		default:
			err = fmt.Errorf("receive: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// handle deals with one protocol message.
func (s *stream) handle(ctx context.Context, message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		data, err := decoder.SplitCopyData(m.Data)
		if err != nil {
			return err
		}
		s.report.heard = true
		s.metrics.ReceivedBytes.Add(float64(len(m.Data)))
		if data.Frame != nil {
			return s.handleFrame(ctx, data.Frame, data.Start)
		}
		return s.handleKeepalive(data.Keepalive)
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil // notices are logged by the connection's handler
	case *pgproto3.ErrorResponse:
		// Also one that is not FATAL: the server has left streaming and would ignore
		// all we send from now on.
		pg := pgconn.ErrorResponseToPgError(m)
		if pg.Code == undefinedObject {
			return stuckError(s.cfg.Slot, s.cfg.Publication, s.tracker.Flushed(), max(s.server.walEnd, s.tracker.Received()), pg)
		}
		return fmt.Errorf("stream from slot %q: %w", s.cfg.Slot, pg)
	default: // CopyDone, CommandComplete, ReadyForQuery
		return errStreamEnded
	}
}

// handleFrame enters a frame into the Tracker and hands messages on.
func (s *stream) handleFrame(ctx context.Context, frame []byte, start pglogrepl.LSN) error {
	event, err := s.decoder.Decode(frame, start)
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *decoder.Begin:
		s.messages = 0
		if e.Commit < s.skipTo { // the commit record lies before a confirmed end
			s.metrics.DroppedDuplicates.Inc()
			return nil
		}
		s.unit = s.tracker.Open(e.Time)
	case *decoder.Commit:
		unit := s.unit
		s.unit = nil
		if s.messages > 0 {
			s.metrics.TransactionMessages.Observe(float64(s.messages))
		}
		if unit == nil { // dropped: an empty unit in its place
			s.tracker.Keepalive(e.End)
			return nil
		}
		return order(unit.Seal(e.End))
	case *decoder.Message:
		m := *e
		*e = decoder.Message{} // or the decoder would keep the content until the next message
		return s.handleMessage(ctx, m)
	case *decoder.Truncate:
		for _, m := range e.Messages {
			if err := s.handleMessage(ctx, m); err != nil {
				return err
			}
		}
	case *decoder.Other:
	}
	return nil
}

func (s *stream) handleMessage(ctx context.Context, m decoder.Message) error {
	if m.Transactional {
		s.messages++
		if s.unit == nil {
			return nil
		}
		return s.push(ctx, delivery{message: m, done: s.unit.Add()})
	}
	if m.LSN <= s.skipTo {
		s.metrics.DroppedDuplicates.Inc()
		s.tracker.Keepalive(m.LSN)
		return nil
	}
	unit := s.tracker.Open(time.Now())
	done := unit.Add()
	if err := unit.Seal(m.LSN); err != nil {
		return order(err)
	}
	return s.push(ctx, delivery{message: m, done: done})
}

// push puts d into the inbox. While that is full, nothing is received, but
// reports go out.
func (s *stream) push(ctx context.Context, d delivery) error {
	if s.inbox.offer(d) {
		return nil
	}
	s.metrics.Inbox.Backpressure.Start()
	defer s.metrics.Inbox.Backpressure.Stop()
	for !s.inbox.offer(d) {
		if err := s.attend(ctx, s.inbox.emptied); err != nil {
			return err
		}
	}
	return nil
}

// deliver hands messages to the Sink, in order, until the inbox is closed.
func (s *stream) deliver(ctx context.Context, to Sink) error {
	var batch []delivery
	for {
		clear(batch)
		if batch = s.inbox.take(ctx, batch); batch == nil {
			return context.Cause(ctx)
		}
		for _, d := range batch {
			if err := to.Publish(ctx, d.message, d.done); err != nil {
				return err
			}
		}
	}
}

// finish waits until all that was received is safe, reports it, and ends the
// stream in agreement with the server, so that the report is not lost with the
// connection.
func (s *stream) finish(ctx context.Context, delivered <-chan error, to Sink) error {
	drained := make(chan struct{})
	var drainErr error
	go func() { // drainer
		defer close(drained)
		if drainErr = <-delivered; drainErr == nil {
			drainErr = to.Drain(ctx)
		}
	}()
	err := s.attend(context.WithoutCancel(ctx), drained) // deliverer and Sink end with ctx
	<-drained
	if err == nil {
		err = s.sendStatus(time.Now(), false)
	}
	if err == nil {
		err = s.sayGoodbye()
	}
	if drainErr != nil {
		return &SinkError{drainErr}
	}
	return err
}

// sayGoodbye ends the copy mode and waits until the server has done so too: then
// it has read our last report.
func (s *stream) sayGoodbye() error {
	s.conn.Frontend().Send(&pgproto3.CopyDone{})
	if err := s.conn.Frontend().Flush(); err != nil {
		return fmt.Errorf("end stream: %w", err)
	}
	deadline := time.Now().Add(goodbyeTimeout)
	for {
		s.raw.rest()
		s.raw.readUntil(deadline)
		message, err := s.conn.ReceiveMessage(context.Background())
		switch {
		case pgconn.Timeout(err) && time.Now().Before(deadline):
			continue // a wake-up about something that was seen already
		case err != nil:
			return fmt.Errorf("end stream: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("end stream: %w", pgconn.ErrorResponseToPgError(m))
		}
	}
}

// close closes the connection, whatever state it is in.
func (s *stream) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // nothing depends on it: the slot keeps its position
}

func order(err error) error {
	if err == nil {
		return nil
	}
	return &OrderError{err}
}
