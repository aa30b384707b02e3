package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/replication"
)

// watchEvery is how often the slot is looked at.
const watchEvery = 3 * time.Second

// watchSlot brings the slot's numbers into the metrics, until ctx ends. It returns
// an error if the server has made a synchronous standby of the daemon.
func (d *daemon) watchSlot(ctx context.Context) error {
	warnings := &slotWarnings{log: d.log}
	var failures backoff.Repeats
	for {
		sync, err := d.lookAtSlot(ctx, warnings)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			d.slot.Clear()
			if failures.Worth(err.Error(), time.Now()) {
				d.log.Warn("cannot look at the slot", slog.Any("error", err))
			}
		case sync:
			return &replication.SlotError{
				Slot: d.cfg.Slot, Problem: "is read by a synchronous standby: every commit would wait for RabbitMQ",
				Fix: "name the real standbys in synchronous_standby_names instead of *, and reload",
			}
		}
		timer := time.NewTimer(watchEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (d *daemon) lookAtSlot(ctx context.Context, warnings *slotWarnings) (synchronous bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	err = d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		status, err := catalog.ReadSlot(ctx, conn, d.cfg.Slot)
		if err != nil {
			return err
		}
		letters, err := catalog.CountDeadLetters(ctx, conn)
		if err != nil {
			return err
		}
		for _, s := range d.sessions() {
			sync, err := catalog.IsSynchronousStandby(ctx, conn, s.PID()) // no process has number 0
			if err != nil {
				return err
			}
			synchronous = synchronous || sync
		}
		show(d.slot, status)
		for _, own := range d.ownStreams() {
			status, err := catalog.ReadSlot(ctx, conn, catalog.LaneSlot(d.cfg.Slot, own.broker))
			if errors.Is(err, catalog.ErrNoSlot) { // it has just joined the others
				continue
			}
			if err != nil {
				return err
			}
			show(own.slot, status)
		}
		d.slot.DeadLetterMessages.Set(float64(letters))
		return warn(ctx, conn, warnings, status, d.cfg.Publication)
	})
	return synchronous, err
}

// show brings a slot's numbers into its metrics.
func show(m *metrics.Slot, s catalog.SlotStatus) {
	m.LagBytes.Set(float64(s.ConfirmedLag))
	m.RetainedBytes.Set(float64(s.Retained))
	if s.SafeWALSize != nil {
		m.SafeBytes.Set(float64(*s.SafeWALSize))
	} else {
		m.SafeBytes.Clear()
	}
	m.WALStatus.Set(metrics.WALStatus(s.WALStatus))
}

// warn asks what only a warning needs, and logs it.
func warn(ctx context.Context, conn *pgx.Conn, warnings *slotWarnings, status catalog.SlotStatus, publication string) error {
	var oldest string
	var err error
	if slotDanger(status) != "" && heldByTransaction(status) {
		if oldest, err = catalog.OldestTransaction(ctx, conn); err != nil {
			return err
		}
	}
	warnings.see(status, oldest, time.Now())
	present, err := catalog.HasPublication(ctx, conn, publication)
	if err == nil {
		warnings.seePublication(publication, present, time.Now())
	}
	return err
}

// sendHeartbeats writes a message every interval while this daemon streams, and
// measures when everything up to it is confirmed: the whole path, at work.
func (d *daemon) sendHeartbeats(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.HeartbeatInterval)
	defer tick.Stop()
	var failures backoff.Repeats
	for {
		if d.session.Status().State == metrics.StateStreaming {
			switch err := d.heartbeat(ctx); {
			case err == nil:
				failures = backoff.Repeats{}
			case ctx.Err() == nil && failures.Worth(err.Error(), time.Now()):
				d.log.Warn("heartbeat did not come through", slog.Any("error", err))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *daemon) heartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.HeartbeatInterval,
		fmt.Errorf("not confirmed within %s: something before it is not", d.cfg.HeartbeatInterval))
	defer cancel()
	began := time.Now()
	var lsn pglogrepl.LSN
	err := d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		lsn, err = catalog.Heartbeat(ctx, conn, began.UTC().Format(time.RFC3339Nano))
		return err
	})
	if err == nil { // the connection is closed: none is idle while waiting
		err = d.session.WaitConfirmed(ctx, lsn)
	}
	if err == nil {
		d.log.Debug("heartbeat came through", slog.String("lsn", lsn.String()), slog.Duration("after", time.Since(began)))
		d.received.HeartbeatRoundTrip.Observe(time.Since(began).Seconds())
		d.received.LastHeartbeat.SetToCurrentTime()
	}
	return err
}
