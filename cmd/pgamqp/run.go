package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/decoder"
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

	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, background := errgroup.WithContext(background)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(background, func() { cancel(context.Cause(background)) })()

	status, err := page.New(d.registry, d.ready, journal)
	if err != nil {
		return err
	}
	server := newHTTPServer(d.registry, status, d.live, d.ready, log)
	server.webConfig = cfg.WebConfig
	group.Go(func() error { return server.Run(background, listener) })
	group.Go(func() error { return status.Run(background) })
	group.Go(func() error {
		notifySystemd(ctx, d.live, d.ready, log)
		return nil
	})
	group.Go(func() error {
		reload.run(background, log, metrics.NewReload(d.registry))
		return nil
	})
	err = d.preflight(ctx)
	if err == nil {
		group.Go(func() error { return d.publisher.Run(background) })
		group.Go(func() error { return d.watchSlot(background) })
		group.Go(func() error { return d.watchShutdown(background) })
		group.Go(func() error { return d.sendHeartbeats(background) })
		group.Go(func() error {
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
	registry  *prometheus.Registry
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

	memoryLimit atomic.Int64 // as it was set last

	secrets brokerSecrets
	trust   atomic.Pointer[decoder.Trust] // as it was read last, with the brokers

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
		slot:     metrics.NewSlot(reg, cfg.Slot),
		received: metrics.NewReplication(reg, cfg.Slot),
		brokers:  metrics.NewPublisher(reg),
		own:      make(map[int32]*ownStream),
		secrets:  brokerSecrets{store: secrets.New(cfg.SecretsDir), log: log},
	}
	d.trust.Store(new(decoder.Trust))
	var err error
	if d.pool, err = newPool(ctx, cfg, d.streamingFrom); err != nil {
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
		Open: func(m decoder.Message) ([]byte, error) {
			err := d.trust.Load().Open(&m)
			return m.Content, err
		},
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
	postgres := d.pool.Config().ConnConfig.Config.Copy()
	maps.Copy(postgres.RuntimeParams, rows.Settings())
	return replication.Config{
		Postgres:        postgres,
		Slot:            d.cfg.Slot,
		Publication:     d.cfg.Publication,
		InboxMessages:   inboxMessages,
		InboxBytes:      inboxBytes,
		ShutdownTimeout: d.cfg.ShutdownTimeout,
	}
}

// streamingFrom returns the address of the server that is streamed from, empty if none is.
func (d *daemon) streamingFrom() string { return d.session.Address() }

// newPool makes the pool for dead letters, which can come in thousands, and keeps
// the settings of all other connections. Idle ones are closed after two seconds:
// PostgreSQL's smart shutdown waits for every session that is open, for ever.
func newPool(ctx context.Context, cfg config.Config, streamingFrom func() string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(string(cfg.DatabaseURL))
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	c.MaxConns = 4
	c.MinConns = 0
	c.MaxConnIdleTime = 2 * time.Second
	c.HealthCheckPeriod = time.Second
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	catalog.Settle(&c.ConnConfig.Config)
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "pgamqp"
	}
	preferPrimary(&c.ConnConfig.Config)
	follow(&c.ConnConfig.Config, streamingFrom)
	c.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return stillFollows(conn, streamingFrom), nil }
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

func (d *daemon) check(ctx context.Context) error {
	return d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
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

// notReadyAfter is how long a broker with waiting messages may be unavailable.
const notReadyAfter = 10 * time.Second

// ready tells whether messages flow, or would at once if the daemon that works now
// ended: a standby that waits for the slot is as it should be.
func (d *daemon) ready() (string, error) {
	status := d.session.Status()
	switch status.State {
	case metrics.StateStreaming:
		return "ready", d.flowing()
	case metrics.StateStandby:
		return "standby", nil
	default:
		return "", errors.Join(fmt.Errorf("replication is %s for %s", status.State, time.Since(status.Since).Round(time.Second)), status.Err)
	}
}

// flowing tells which brokers have messages waiting that they do not take.
func (d *daemon) flowing() error {
	var errs []error
	lanes := d.publisher.Status()
	for _, s := range d.ownStreams() {
		lanes = append(lanes, s.lanes()...)
	}
	for _, lane := range lanes {
		if lane.Held > 0 && !lane.Down.IsZero() && time.Since(lane.Down) > notReadyAfter {
			errs = append(errs, fmt.Errorf("broker %d takes no messages for %s, %d wait: %w",
				lane.Broker, time.Since(lane.Down).Round(time.Second), lane.Held, lane.Err))
		}
	}
	return errors.Join(errs...)
}
