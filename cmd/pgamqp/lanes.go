package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/isolation"
	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/publisher"
	"github.com/pgamqp/pgamqp/replication"
)

// mainStream is what the isolation of brokers sees of the stream that serves all.
type mainStream struct {
	*publisher.Publisher
	session *replication.Session
}

// Received is the session's.
func (m mainStream) Received() pglogrepl.LSN { return m.session.Received() }

// begin is called for each main stream that has started.
func (d *daemon) begin(ctx context.Context, at replication.Start) (replication.Begun, error) {
	d.mu.Lock()
	d.history = at.History
	d.mu.Unlock()
	d.trust.streams.Add(1)
	versions, err := d.routeVersions(ctx, 0)
	if err != nil {
		return replication.Begun{}, err
	}
	d.session.Tick() // each of the two questions may take long
	if err := d.followSnapshots(ctx); err != nil {
		return replication.Begun{}, err
	}
	end, forget, err := d.isolation.Begin(ctx,
		&catalog.Lanes{Ask: d.ask, Slot: d.cfg.Slot, PID: at.PID},
		isolation.Start{Confirmed: at.Confirmed, Remembered: at.Remembered, History: at.History, Others: at.Others, LostWAL: at.LostWAL})
	if err != nil {
		return replication.Begun{}, d.explainLost(err)
	}
	from := at.Remembered
	if forget {
		from = at.Confirmed
	}
	if err := d.routing.router.Begin(from, versions); err != nil {
		end()
		return replication.Begun{}, err
	}
	endSnapshots := d.takeSnapshots()
	return replication.Begun{Ended: func() { endSnapshots(); end() }, Forget: forget}, nil
}

// explainLost makes the loss of a detached broker's slot end the daemon, as that of the main
// slot does.
func (d *daemon) explainLost(err error) error {
	lost, is := errors.AsType[*isolation.LostError](err)
	if !is {
		return err
	}
	from := "an unknown position"
	if lost.From != 0 {
		from = lost.From.String()
	}
	return &replication.SlotError{
		Slot: catalog.LaneSlot(d.cfg.Slot, lost.Broker), Cause: replication.Gone, Err: err,
		Problem: fmt.Sprintf("does not exist on this server, and broker %d was detached; it had confirmed everything up to %s, and the main slot goes on from %s: a standby was promoted, or a backup restored, that had not got it",
			lost.Broker, from, lost.To),
		Fix: fmt.Sprintf("note both positions, what was published to broker %d between them and has not arrived there is lost to it; then start the daemon again", lost.Broker),
	}
}

// ownStream streams from the slot of a detached broker. It lives as long as the broker is
// detached, over interruptions: its session remembers what it has confirmed.
type ownStream struct {
	d         *daemon
	broker    int32
	session   *replication.Session
	received  *metrics.Replication
	slot      *metrics.Slot
	publisher *publisher.Publisher // of the current run; guarded by d.mu
	routing   *routing
}

// ownStream returns that of a broker, made at the first call.
func (d *daemon) ownStream(broker int32) isolation.Lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.own[broker]; s != nil {
		return s
	}
	name := catalog.LaneSlot(d.cfg.Slot, broker)
	s := &ownStream{d: d, broker: broker, routing: d.newRouting(broker), received: metrics.NewReplication(d.registry, name), slot: metrics.NewSlot(d.registry, name)}
	config := d.sessionConfig()
	config.Slot, config.Started = name, s.begin
	// It checks the name only, which the server has accepted.
	s.session, _ = replication.NewSession(config, d.log, s.received)
	d.own[broker] = s
	return s
}

// changed is called when a broker is detached, or has joined the others.
func (d *daemon) changed(broker int32, detached bool) {
	gauge := d.brokers.Broker(broker).Detached
	if detached {
		gauge.Set(1)
		return
	}
	gauge.Set(0)
	defer d.taker.Wake() // for a snapshot that waits for the broker
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.own[broker]; s != nil {
		delete(d.own, broker)
		s.received.Remove()
		s.slot.Remove()
	}
}

// begin refuses to stream from another server than the main stream: positions must mean
// the same for both.
func (s *ownStream) begin(ctx context.Context, at replication.Start) (replication.Begun, error) {
	s.d.mu.Lock()
	history := s.d.history
	s.d.mu.Unlock()
	if at.History != history {
		return replication.Begun{}, fmt.Errorf("slot of broker %d is read from system and timeline %s, the main slot from %s", s.broker, at.History, history)
	}
	versions, err := s.d.routeVersions(ctx, 0)
	if err != nil {
		return replication.Begun{}, err
	}
	return replication.Begun{}, s.routing.router.Begin(at.Remembered, versions)
}

// Run implements isolation.Lane.
func (s *ownStream) Run(ctx context.Context) error {
	s.d.keepOverFailover(ctx, s.broker)
	s.session.Tick()
	p := s.d.publisher.Own(s.broker, s.routing, publisher.Metrics{
		Brokers: s.d.brokers, Received: s.received.Received, Skipped: s.received.Skipped,
	})
	s.d.mu.Lock()
	s.publisher = p
	s.d.mu.Unlock()
	publishing, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- p.Run(publishing) }() // own publisher
	err := s.session.Run(ctx, p)
	end()
	return errors.Join(err, <-ended)
}

// keepOverFailover makes a broker's slot a failover slot, if the main slot is one. What
// cannot be done now is tried at the next start of the stream: it matters only then.
func (d *daemon) keepOverFailover(ctx context.Context, broker int32) {
	limited, cancel := context.WithTimeoutCause(ctx, 2*questionTimeout, errSlow)
	defer cancel()
	var main, lane catalog.SlotStatus
	err := d.ask(limited, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if main, err = catalog.ReadSlot(ctx, conn, d.cfg.Slot); err == nil {
			lane, err = catalog.ReadSlot(ctx, conn, catalog.LaneSlot(d.cfg.Slot, broker))
		}
		return err
	})
	if err == nil {
		err = catalog.KeepLaneOverFailover(limited, &d.postgres.config().Config, main, lane)
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("cannot keep the slot of a detached broker over a failover", slog.String("broker", strconv.Itoa(int(broker))), slog.Any("error", err))
	}
}

// Confirmed implements isolation.Lane.
func (s *ownStream) Confirmed() pglogrepl.LSN { return s.session.Confirmed() }

// Working implements isolation.Lane.
func (s *ownStream) Working() bool {
	if s.session.Status().State != metrics.StateStreaming {
		return false
	}
	for _, lane := range s.lanes() {
		if !lane.Down.IsZero() {
			return false
		}
	}
	return true
}

// lanes returns the state of the broker's lane, if it has one.
func (s *ownStream) lanes() []publisher.LaneStatus {
	if p := s.sink(); p != nil {
		return p.Status()
	}
	return nil
}

// sink returns the publisher of the current run, nil if there was none yet.
func (s *ownStream) sink() *publisher.Publisher {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.publisher
}

// ownStreams returns the streams of all detached brokers.
func (d *daemon) ownStreams() []*ownStream {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*ownStream, 0, len(d.own))
	for _, s := range d.own {
		out = append(out, s)
	}
	return out
}

// sessions returns the main stream's session and those of all detached brokers.
func (d *daemon) sessions() []*replication.Session {
	all := []*replication.Session{d.session}
	for _, s := range d.ownStreams() {
		all = append(all, s.session)
	}
	return all
}
