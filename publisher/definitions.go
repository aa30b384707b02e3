package publisher

import (
	"context"
	"log/slog"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// refreshEvery is how often definitions are read without a sign of a change.
const refreshEvery = 15 * time.Second

// rereadAfter are the pauses after which definitions are read again when they are
// said to have changed: the stream may be faster than the commit is visible.
func rereadAfter() []time.Duration {
	return []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond}
}

// keepDefinitions reads amqp.broker at the start, when it is said to have changed
// and every now and then, and starts, changes and ends lanes.
func (p *Publisher) keepDefinitions(ctx context.Context, start func(*lane)) {
	failed := backoff.New(100*time.Millisecond, 5*time.Second)
	var again []time.Duration // still to be waited before reading again
	for {
		brokers, err := p.cfg.Brokers(ctx)
		pause := refreshEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Warn("cannot read amqp.broker, trying again", slog.Any("error", err))
			pause = failed.Next()
		default:
			failed.Reset()
			p.define(brokers, start)
			if len(again) > 0 {
				pause, again = again[0], again[1:]
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.kicked:
			again = rereadAfter()[1:]
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// define makes the lanes fit the definitions.
func (p *Publisher) define(brokers []Broker, start func(*lane)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := make(map[int32]bool, len(brokers))
	for _, b := range brokers {
		if len(b.Hosts) == 0 {
			continue
		}
		wanted[b.ID] = true
		if l := p.lanes[b.ID]; l != nil {
			l.update(b.Hosts)
			continue
		}
		l := newLane(b, p.cfg, p.log, p.metrics.Brokers.Broker(b.ID))
		p.lanes[b.ID] = l
		delete(p.unknown, b.ID)
		start(l)
	}
	for id, l := range p.lanes {
		if !wanted[id] {
			delete(p.lanes, id)
			l.retire()
			l.log.Info("broker was deleted")
		}
	}
	p.loaded = true
	close(p.changed)
	p.changed = make(chan struct{})
}
