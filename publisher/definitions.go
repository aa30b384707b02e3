package publisher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// Definitions are read without a sign of a change every refreshEvery, because a
// trigger can be disabled, and every refreshBlocked while the stream is blocked, because
// the sign may wait behind the very message that blocks it.
const (
	refreshBlocked = time.Second
	refreshEvery   = 15 * refreshBlocked
)

// keepDefinitions reads amqp.broker at the start and every now and then.
func (p *Publisher) keepDefinitions(ctx context.Context) {
	tick := time.NewTicker(refreshBlocked)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%int(refreshEvery/refreshBlocked) == 0 || p.streamBlocked() {
			if p.refresh(ctx, 0) != nil {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// streamBlocked tells whether the stream stands still because a message waits for room in
// a lane, be its broker down, frozen, or one that will not take what is next. A window
// that is full for moments, as under load, blocks nothing: each reading is a session
// of the database.
func (p *Publisher) streamBlocked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lanes {
		if l.keepsWaiting() >= refreshBlocked {
			return true
		}
	}
	return false
}

// refresh reads the definitions, as changed by transaction xid if that is not 0,
// and starts, changes and ends lanes. It tries until it succeeds or ctx ends.
func (p *Publisher) refresh(ctx context.Context, xid uint32) error {
	// One reader at a time, or an older reading could replace a newer one.
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	failed := backoff.New(50*time.Millisecond, 2*time.Second)
	var repeats backoff.Repeats
	for {
		brokers, err := p.cfg.Brokers(ctx, xid)
		if err == nil {
			p.define(ctx, brokers)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.wait.failed(fmt.Errorf("read amqp.broker: %w", err))
		if repeats.Worth(err.Error(), time.Now()) {
			p.log.Warn("cannot read amqp.broker, trying again", slog.Any("error", err))
		}
		if err := failed.Wait(ctx); err != nil {
			return err
		}
	}
}

// settleBefore bounds how long a lane that works may take to deliver what it holds
// before it is given new hosts.
const settleBefore = 5 * time.Second

// define makes the lanes fit the definitions. What a lane holds was published
// before the change, so it is delivered first, if the broker takes it.
func (p *Publisher) define(ctx context.Context, brokers []Broker) {
	wanted := make(map[int32]Broker, len(brokers))
	for _, b := range brokers {
		if len(b.Hosts) > 0 && (p.own == nil || p.own.broker == b.ID) {
			wanted[b.ID] = b
		}
	}
	p.mu.Lock()
	p.brokers = wanted
	p.openLanes()
	lanes := maps.Clone(p.lanes)
	p.mu.Unlock()
	for id, l := range lanes {
		if b, ok := wanted[id]; ok && !l.has(b) {
			settling, cancel := context.WithTimeout(ctx, cmp.Or(p.cfg.settleBefore, settleBefore))
			_ = l.drain(settling, 0) // a lane that is down is why somebody changes it
			cancel()
			l.update(b)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, l := range p.lanes {
		if _, ok := wanted[id]; !ok {
			delete(p.lanes, id)
			l.retire()
			l.log.Info("broker was deleted")
		}
	}
	if !p.loaded {
		p.loaded = true
		close(p.ready)
	}
}

// openLanes makes the lanes that are missing. The lock is held.
func (p *Publisher) openLanes() {
	for id, b := range p.brokers {
		if p.lanes[id] != nil {
			continue
		}
		var held bool
		if p.own == nil {
			gate := p.gates[id]
			if gate == nil {
				gate = NewGate(p.from)
				p.gates[id] = gate
			}
			if gate.is(gateDetached) {
				continue
			}
			held = gate.is(gateRejoining)
		}
		p.open(b, held)
	}
}

// open makes the lane of a broker. held means that it does not connect before it is
// released. The lock is held.
func (p *Publisher) open(b Broker, held bool) {
	l := newLane(b, p.cfg, p.log, p.metrics.Brokers.Broker(b.ID))
	if held {
		l.hold()
	}
	p.lanes[b.ID] = l
	p.start(l)
}
