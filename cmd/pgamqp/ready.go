package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/publisher"
)

// notReadyAfter is how long messages may wait for a broker, or for the database, without any
// progress.
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

// flowing tells which messages wait, and for what.
func (d *daemon) flowing() error {
	now := time.Now()
	errs := []error{flows(d.publisher, d.routing, now)}
	for _, s := range d.ownStreams() {
		if p := s.sink(); p != nil {
			errs = append(errs, flows(p, s.routing, now))
		}
	}
	return errors.Join(errs...)
}

// flows is flowing for one stream.
func flows(p *publisher.Publisher, r *routing, now time.Time) error {
	var errs []error
	for _, lane := range p.Status() {
		errs = append(errs, standstill(lane, now))
	}
	since, why := p.Waits()
	if w := r.waits.Load(); w != nil {
		since, why = w.since, w.why
	}
	if waited := now.Sub(since); !since.IsZero() && waited > notReadyAfter {
		errs = append(errs, fmt.Errorf("messages wait for the database for %s: %w", waited.Round(time.Second), why))
	}
	return errors.Join(errs...)
}

// What is said of a broker if nothing else is known.
var (
	errSilent       = errors.New("it takes messages and does not confirm them")
	errNotConnected = errors.New("it has not answered yet")
)

// standstill tells whether a broker has messages waiting without any progress. One that is
// idle may be down for long.
func standstill(lane publisher.LaneStatus, now time.Time) error {
	if lane.Held == 0 {
		return nil
	}
	since, why, down := lane.Still, errSilent, !lane.Down.IsZero()
	if down {
		why = errNotConnected
		if lane.Down.Before(since) { // else it comes and goes, and is down for moments only
			since = lane.Down
		}
	}
	if lane.Err != nil {
		why = lane.Err
	}
	waited := now.Sub(since)
	switch {
	case waited <= notReadyAfter:
		return nil
	case down:
		return fmt.Errorf("broker %d takes no messages for %s, %d wait: %w", lane.Broker, waited.Round(time.Second), lane.Held, why)
	default:
		return fmt.Errorf("broker %d has confirmed nothing for %s, %d wait: %w", lane.Broker, waited.Round(time.Second), lane.Held, why)
	}
}
