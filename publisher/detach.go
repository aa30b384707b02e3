package publisher

import (
	"context"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// ownStream is what makes a Publisher the sink of the stream of one broker's own slot.
type ownStream struct {
	broker int32
	gate   *Gate
}

// concerns tells whether the stream looks at a message. It sees all of the database;
// what is not for its broker, or cannot be read, is the main stream's.
func (o *ownStream) concerns(e *decoder.Envelope) bool {
	switch e.Kind {
	case decoder.KindBrokersChanged, decoder.KindRoutesChanged, decoder.KindSnapshotChunk:
		return true
	case decoder.KindPing, decoder.KindHeartbeat, decoder.KindSnapshotsChanged:
		return false
	}
	return e.BrokerID == o.broker
}

// serves tells whether the message at pos is this stream's to deliver. gate is that of its
// broker in the main stream, nil if it has none.
func (p *Publisher) serves(ctx context.Context, gate *Gate, pos decoder.Position) (bool, error) {
	if p.own != nil {
		return p.own.gate.ServesLane(ctx, pos)
	}
	return gate == nil || gate.ServesMain(pos), nil
}

// Begin prepares for a main stream that starts at from. The brokers that have a slot
// of their own are detached; sameHistory says whether positions of the stream before
// still mean the same. Publish must not be called meanwhile, and nothing may be held.
func (p *Publisher) Begin(from pglogrepl.LSN, detached []int32, sameHistory bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.from = from
	own := make(map[int32]bool, len(detached))
	for _, id := range detached {
		own[id] = true
		if p.gates[id] == nil {
			p.gates[id] = NewGate(from)
		}
		if l := p.lanes[id]; l != nil {
			delete(p.lanes, id)
			l.giveUp()
		}
	}
	for id, gate := range p.gates {
		gate.Begin(from, own[id], sameHistory)
	}
	for _, l := range p.lanes {
		// One that waited for Join: the stream before ended without knowing that the slot
		// was gone.
		if l.release != nil {
			l.release()
		}
	}
	p.openLanes()
}

// Own makes a Publisher for the stream of a detached broker's own slot. Its messages
// are counted by m; the rest is shared with p.
func (p *Publisher) Own(broker int32, rows Rows, m Metrics) *Publisher {
	config := p.cfg
	config.Rows = rows
	own := New(config, p.log, m)
	p.mu.Lock()
	defer p.mu.Unlock()
	own.own = &ownStream{broker: broker, gate: p.gates[broker]}
	return own
}

// Stuck returns the brokers that keep others waiting: the oldest message that they
// hold has waited for the given time or longer, while another broker, which takes
// messages, has work, or may have some behind a window that is full.
func (p *Publisher) Stuck(after time.Duration) []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	type waiting struct {
		since time.Time
		full  bool
	}
	stuck := make(map[int32]waiting)
	for id, l := range p.lanes {
		if since, full, is := l.holdsUp(after); is {
			stuck[id] = waiting{since, full}
		}
	}
	var out []int32
	for id, w := range stuck {
		for other, l := range p.lanes {
			if _, is := stuck[other]; !is && (w.full || l.fedSince(w.since)) {
				out = append(out, id)
				break
			}
		}
	}
	return out
}

// Detach lets the main stream pass over a broker's messages from now on, and gives up
// those that it holds: a slot of the broker's own keeps them, which must exist. It
// returns once the broker's connection has ended. False means that the broker is not
// stuck any more, and nothing was changed.
func (p *Publisher) Detach(broker int32, stuck time.Duration) bool {
	p.mu.Lock()
	l, gate := p.lanes[broker], p.gates[broker]
	p.mu.Unlock()
	if l == nil || gate == nil {
		return false
	}
	detached := gate.Detach(func() (decoder.Position, bool) {
		if _, _, is := l.holdsUp(stuck); !is {
			return decoder.Position{}, false
		}
		return l.giveUp()
	})
	if !detached {
		return false
	}
	p.drop(broker, l)
	<-l.ended
	return true
}

// drop forgets a lane that was given up.
func (p *Publisher) drop(broker int32, l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lanes[broker] == l {
		delete(p.lanes, broker)
	}
}

// Cut lets the main stream take a detached broker's messages again, from behind the
// returned position on. It holds them until Join; the broker's own stream delivers
// up to there and no further.
func (p *Publisher) Cut(broker int32) decoder.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, defined := p.brokers[broker]; defined && p.lanes[broker] == nil {
		p.open(b, true)
	}
	return p.gates[broker].Cut()
}

// Undo takes a Cut back. The broker's slot must still be there: it keeps what is given
// up here.
func (p *Publisher) Undo(broker int32) {
	p.mu.Lock()
	l, gate := p.lanes[broker], p.gates[broker]
	p.mu.Unlock()
	gate.Undo(func() {
		if l != nil {
			l.giveUp()
		}
	})
	if l != nil {
		p.drop(broker, l)
	}
}

// Join completes a Cut: the broker's own stream has delivered all up to the cut, has
// ended, and its slot is gone.
func (p *Publisher) Join(broker int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gates[broker].Join()
	if l := p.lanes[broker]; l != nil && l.release != nil {
		l.release()
	}
}
