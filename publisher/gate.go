package publisher

import (
	"context"
	"sync"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// gateState says which of two streams delivers a broker's messages.
type gateState string

const (
	// gateMain: the main stream, from behind the cut on.
	gateMain gateState = "main"
	// gateDetached: the stream of the broker's own slot. The main stream passes the
	// broker's messages over: that slot keeps them.
	gateDetached gateState = "detached"
	// gateRejoining: the broker's own stream up to the cut, the main stream from there on.
	// What the main stream has for the broker waits until the other one has delivered its
	// part.
	gateRejoining gateState = "rejoining"
)

// Gate decides for each message of one broker which of two streams delivers it: the
// main one, or that of the broker's own slot. Both streams see every message, in the
// same order. It does no I/O.
//
// Invariants:
//   - each message is delivered by one of them at least, whatever the other does:
//     the main stream passes over only what the broker's own slot still keeps;
//   - a cut lies behind every message that either stream has decided on before, and
//     behind all that the main stream will not see again. A unit is never divided.
type Gate struct {
	mu    sync.Mutex // guards all below
	state gateState
	// cut divides the streams while rejoining. joined is the last one that was completed:
	// all up to there has been delivered.
	cut, joined decoder.Position
	// main and lane are the highest positions that the streams have decided on; main is
	// at least where the main stream starts.
	main, lane decoder.Position
	// resume is the first message that was not delivered before the lane was detached.
	resume decoder.Position
	// changed is closed and replaced when the state changes.
	changed chan struct{}
}

// NewGate makes the gate of a broker that is served by a main stream which starts at
// from.
func NewGate(from pglogrepl.LSN) *Gate {
	return &Gate{state: gateMain, main: decoder.PositionAt(from), changed: make(chan struct{})}
}

// set changes the state. The lock is held.
func (g *Gate) set(s gateState) {
	g.state = s
	close(g.changed)
	g.changed = make(chan struct{})
}

// is tells whether the gate is in a state.
func (g *Gate) is(s gateState) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state == s
}

// Begin prepares the gate for a new main stream, which starts at from. detached says
// whether the broker has a slot of its own. If the streams before were of another
// history, what is remembered of their positions means nothing.
func (g *Gate) Begin(from pglogrepl.LSN, detached, sameHistory bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.main, g.lane, g.resume = decoder.PositionAt(from), decoder.Position{}, decoder.Position{}
	if !sameHistory {
		g.joined = decoder.Position{}
	}
	if detached {
		g.set(gateDetached)
	} else {
		g.set(gateMain)
	}
}

// ServesMain tells the main stream whether to deliver the message at p. False means
// that the other stream delivers it, or has.
func (g *Gate) ServesMain(p decoder.Position) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.Compare(g.main) > 0 {
		g.main = p
	}
	switch g.state {
	case gateMain:
		return p.CompareUnit(g.joined) > 0
	case gateRejoining:
		return p.CompareUnit(g.cut) > 0
	}
	return false
}

// ServesLane tells the broker's own stream whether to deliver the message at p. It
// waits while that cannot be said: the main stream is about to take over. False means
// that it was delivered before. An error means that ctx ended.
func (g *Gate) ServesLane(ctx context.Context, p decoder.Position) (bool, error) {
	for {
		serve, wait := g.TryLane(p)
		if wait == nil {
			return serve, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// TryLane is ServesLane without waiting: wait is not nil if there is no answer yet.
func (g *Gate) TryLane(p decoder.Position) (serve bool, wait <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == gateMain || g.state == gateRejoining && p.CompareUnit(g.cut) > 0 {
		return false, g.changed
	}
	if p.Compare(g.lane) > 0 {
		g.lane = p
	}
	return p.Compare(g.resume) >= 0, nil
}

// Detach makes the main stream pass the broker's messages over from now on; its slot
// must exist. giveUp ends what the main stream has accepted for the broker and returns
// the first message of it that was not delivered, ok false if there is none, which
// leaves all as it was.
func (g *Gate) Detach(giveUp func() (first decoder.Position, ok bool)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first, ok := giveUp()
	if !ok {
		return false
	}
	g.lane, g.resume = decoder.Position{}, first
	g.set(gateDetached)
	return true
}

// Cut lets the main stream deliver, or keep for delivery, what lies behind the
// returned position, and the other stream nothing of that.
func (g *Gate) Cut() decoder.Position {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = g.main
	if g.lane.Compare(g.main) > 0 {
		g.cut = g.lane
	}
	g.set(gateRejoining)
	return g.cut
}

// Undo takes a Cut back; the broker's slot must still be there. giveUp ends what the
// main stream has accepted for the broker meanwhile.
func (g *Gate) Undo(giveUp func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	giveUp()
	g.set(gateDetached)
}

// Join completes a Cut: the other stream has ended and its slot is gone.
func (g *Gate) Join() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.joined = g.cut
	g.set(gateMain)
}
