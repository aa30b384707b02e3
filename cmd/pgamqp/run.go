package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/config"
	"github.com/pgamqp/pgamqp/internal/isolation"
	"github.com/pgamqp/pgamqp/internal/page"
	"github.com/pgamqp/pgamqp/internal/rows"
	"github.com/pgamqp/pgamqp/internal/secrets"
	"github.com/pgamqp/pgamqp/internal/snapshot"
	"github.com/pgamqp/pgamqp/internal/tracing"
	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/publisher"
	"github.com/pgamqp/pgamqp/replication"
)

// Publisher is what the replication side delivers to.
var _ replication.Sink = (*publisher.Publisher)(nil)

// runDaemon runs until ctx ends (nil) or something is wrong that trying again
// does not cure. The order of its end: the session stops receiving, drains the
// publisher and reports; then the publisher closes its connections; then
// everything else, HTTP among it, so that the drain can be watched.
func runDaemon(ctx context.Context, cfg config.Config, reload *reloader, log *slog.Logger) error {
	journal := page.NewJournal(log.Handler())
	log = slog.New(journal)
	if err := checkWebConfig(cfg.WebConfig); err != nil {
		return exitWith(exitUsage, err)
	}
	listener, err := listenHTTP(ctx, cfg.Listen)
	if err != nil {
		return exitWith(exitUsage, err)
	}
	defer func() { _ = listener.Close() }() // for an early return; the server closes it, too
	d, err := newDaemon(ctx, cfg, log, newRegistry())
	if err != nil {
		return err
	}
	defer d.close()
	d.journal = journal

	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group errgroup.Group
	// A part that fails makes the session stop; all others go on, so that what was received
	// is delivered.
	start := func(part func() error) {
		group.Go(func() error {
			err := part()
			if err != nil {
				log.Error("stopping because of an error", slog.Any("error", err))
				cancel(err)
			}
			return err
		})
	}

	status, err := page.New(d.registry, d.ready, journal)
	if err != nil {
		return err
	}
	server := newHTTPServer(d.registry, status, d.live, d.ready, log)
	server.webConfig = cfg.WebConfig
	start(func() error { return server.Run(background, listener) })
	start(func() error { return status.Run(background) })
	start(func() error {
		notifySystemd(ctx, d.live, d.ready, log)
		return nil
	})
	start(func() error {
		reload.run(background, log, metrics.NewReload(d.registry))
		return nil
	})
	err = d.preflight(ctx)
	if err == nil {
		start(func() error { return d.publisher.Run(background) })
		start(func() error { return d.watchSlot(background) })
		start(func() error { return d.watchShutdown(background) })
		start(func() error { return d.sendHeartbeats(background) })
		start(func() error {
			select {
			case err := <-d.isolation.Failed():
				return err
			case <-background.Done():
				return nil
			}
		})
		err = d.session.Run(ctx, d.publisher)
	}
	end()
	return withExitCode(errors.Join(err, group.Wait()))
}

// withExitCode gives the errors that an operator must deal with their codes.
func withExitCode(err error) error {
	var slot *replication.SlotError
	if errors.As(err, &slot) {
		return exitWith(slotExitCode(slot.Cause), err)
	}
	// The session ends by itself only for what trying again does not cure.
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return exitWith(exitPrecondition, err)
	}
	return err
}

func slotExitCode(cause replication.Cause) int {
	switch cause {
	case replication.Invalidated:
		return exitSlotLost
	case replication.Gone:
		return exitSlotGone
	case replication.OtherSystem:
		return exitOtherSystem
	case replication.NoPublication:
		return exitPublication
	default:
		return exitPrecondition
	}
}

// daemon is the parts of a running daemon.
type daemon struct {
	cfg       config.Config
	log       *slog.Logger
	journal   *page.Journal
	registry  *prometheus.Registry
	postgres  *postgres
	pool      *pgxpool.Pool
	slot      *metrics.Slot
	received  *metrics.Replication
	brokers   *metrics.Publisher
	publisher *publisher.Publisher
	session   *replication.Session
	isolation *isolation.Coordinator
	routing   *routing // of the main stream
	tracker   *snapshot.Tracker
	taker     *snapshot.Taker
	snapshots *metrics.Snapshot
	tracer    *tracing.Tracer // nil unless it is asked for

	memory *memory

	secrets brokerSecrets
	trust   *trust

	mu      sync.Mutex           // guards all below, and the publisher of each own stream
	own     map[int32]*ownStream // of detached brokers
	history string               // that the main stream lies in
}

// The inbox only has to bridge the time in which the publisher takes a batch; the
// windows behind it are what bounds the memory.
const (
	inboxMessages = 512
	inboxBytes    = 4 << 20
)

func newDaemon(ctx context.Context, cfg config.Config, log *slog.Logger, reg *prometheus.Registry) (*daemon, error) {
	d := &daemon{
		cfg: cfg, log: log, registry: reg,
		memory:   newMemory(cfg.WindowBytes),
		slot:     metrics.NewSlot(reg, cfg.Slot),
		received: metrics.NewReplication(reg, cfg.Slot),
		brokers:  metrics.NewPublisher(reg),
		own:      make(map[int32]*ownStream),
		secrets:  brokerSecrets{store: secrets.New(cfg.SecretsDir), log: log},
		trust:    newTrust(),
	}
	var err error
	d.postgres = &postgres{url: string(cfg.DatabaseURL), streamingFrom: d.streamingFrom, log: log}
	if d.pool, err = newPool(ctx, d.postgres); err != nil {
		return nil, exitWith(exitUsage, err)
	}
	d.routing = d.newRouting(0)
	d.newTaker()
	settled, err := d.startTracing(ctx)
	if err != nil {
		d.pool.Close()
		return nil, exitWith(exitUsage, err)
	}
	d.publisher = publisher.New(publisher.Config{
		WindowMessages: cfg.WindowMessages,
		WindowBytes:    int(cfg.WindowBytes),
		NackRetry:      cfg.NackRetryTimeout,
		Headers:        headers(cfg.PGHeaders),
		ConnectionName: "pgamqp " + cfg.Slot,
		Brokers:        d.readBrokers,
		Rows:           d.routing,
		DeadLetter:     d.storeDeadLetter,
		Settled:        settled,
		Hold:           d.memory.hold,
		Open:           d.trust.open,
		Outdated:       d.trust.outdated,
	}, log, publisher.Metrics{Brokers: d.brokers, Received: d.received.Received, Skipped: d.received.Skipped})
	config := d.sessionConfig()
	config.Started = d.begin
	d.session, err = replication.NewSession(config, log, d.received)
	if err != nil {
		d.close()
		return nil, withExitCode(err)
	}
	d.isolation = isolation.New(isolation.Config{
		Main: mainStream{d.publisher, d.session}, Lane: d.ownStream, Abandoned: replication.ErrAbandon,
		After: cfg.DetachAfter, Changed: d.changed,
	}, log)
	return d, nil
}

// sessionConfig is what all streams of the daemon have in common, with the main slot.
func (d *daemon) sessionConfig() replication.Config {
	return replication.Config{
		Postgres: func() *pgconn.Config {
			config := &d.postgres.config().Config
			maps.Copy(config.RuntimeParams, rows.Settings())
			return config
		},
		Slot:            d.cfg.Slot,
		Publication:     d.cfg.Publication,
		InboxMessages:   inboxMessages,
		InboxBytes:      inboxBytes,
		ShutdownTimeout: d.cfg.ShutdownTimeout,
	}
}

// streamingFrom returns the address of the server that is streamed from, empty if none is.
func (d *daemon) streamingFrom() string { return d.session.Address() }

// newPool makes the pool for dead letters, which can come in thousands. Idle
// connections are closed after two seconds: PostgreSQL's smart shutdown waits for
// every session that is open, for ever.
func newPool(ctx context.Context, p *postgres) (*pgxpool.Pool, error) {
	c, err := p.read()
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	c.MaxConns = 4
	c.MinConns = 0
	c.MaxConnIdleTime = 2 * time.Second
	c.HealthCheckPeriod = time.Second
	c.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		*c = *p.config()
		return nil
	}
	c.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return stillFollows(conn, p.streamingFrom), nil }
	return pgxpool.NewWithConfig(ctx, c)
}

func headers(names []config.PGHeader) publisher.Headers {
	var h publisher.Headers
	for _, name := range names {
		switch name {
		case config.HeaderLSN:
			h.LSN = true
		case config.HeaderXID:
			h.XID = true
		case config.HeaderCommitTime:
			h.CommitTime = true
		case config.HeaderRole:
			h.Role = true
		}
	}
	return h
}

// preflight checks everything that a start needs and reports all that is missing
// at once. It waits for a server that cannot be reached, as a daemon that is
// started together with its database has to.
func (d *daemon) preflight(ctx context.Context) error {
	wait := backoff.New(200*time.Millisecond, 5*time.Second)
	var failures backoff.Repeats
	for {
		err := d.check(ctx)
		_, refused := errors.AsType[*exitError](err)
		switch {
		case err == nil, refused:
			return err
		case ctx.Err() != nil:
			return nil
		case !replication.Retryable(err):
			return exitWith(exitPrecondition, err)
		}
		if failures.Worth(err.Error(), time.Now()) {
			d.log.Warn("cannot check the database, trying again", slog.Any("error", err))
		}
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

// check is one attempt of preflight. Each of its steps counts as work of the session, which
// has not begun yet.
func (d *daemon) check(ctx context.Context) error {
	d.session.Tick()
	config := d.postgres.config()
	d.session.Watch(&config.Config)
	return d.askWith(ctx, config, func(ctx context.Context, conn *pgx.Conn) error {
		d.session.Tick()
		ctx, cancel := context.WithTimeoutCause(ctx, questionTimeout, errSlow)
		defer cancel()
		err := catalog.Preflight(ctx, conn, catalog.PreflightOptions{Slot: d.cfg.Slot, Publication: d.cfg.Publication})
		if problems, refused := errors.AsType[*catalog.ProblemsError](err); refused {
			return exitWith(problemsExitCode(problems), err)
		}
		if err != nil {
			return err
		}
		warnings, err := catalog.Warnings(ctx, conn)
		for _, w := range warnings {
			d.log.Warn("the database is not set up as it should be", slog.String("warning", w.What), slog.String("fix", w.Fix))
		}
		return err
	})
}

// questionTimeout bounds what is asked while a stream waits for the answer. Together with
// replication.ConnectLimit it is less than a session may show no sign of work.
const questionTimeout = 10 * time.Second

var errSlow = errors.New("no answer from the server")

func problemsExitCode(problems *catalog.ProblemsError) int {
	switch problems.Gravest() {
	case catalog.SlotLost:
		return exitSlotLost
	case catalog.SlotGone:
		return exitSlotGone
	case catalog.PublicationMissing:
		return exitPublication
	default:
		return exitPrecondition
	}
}

// stuckAfter is how long the session may show no sign of work.
const stuckAfter = 30 * time.Second

// live tells whether the process works; a restart cures what it complains of.
func (d *daemon) live() error {
	for _, s := range d.sessions() {
		if stuck := s.Stuck(); stuck > stuckAfter && s.Status().State != metrics.StateStopped {
			return fmt.Errorf("a replication session has shown no sign of work for %s", stuck.Round(time.Second))
		}
	}
	return nil
}
