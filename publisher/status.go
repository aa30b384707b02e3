package publisher

import (
	"time"
)

// LaneStatus is the state of one broker's lane.
type LaneStatus struct {
	Broker int32
	// Down is since when nothing can be delivered, zero if it can.
	Down time.Time
	// Still is since when no message has got its verdict, or since when there is one that has
	// none; zero if there is none.
	Still time.Time
	// Err is why, as far as is known.
	Err error
	// Held is the number of messages accepted and not resolved.
	Held int
}

// Status returns the state of all lanes, in no order.
func (p *Publisher) Status() []LaneStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]LaneStatus, 0, len(p.lanes))
	for _, l := range p.lanes {
		out = append(out, l.status())
	}
	return out
}
