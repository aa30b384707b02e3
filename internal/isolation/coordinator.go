package isolation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
)

// Slots is what the server keeps for detached brokers, as one main stream may use it.
// Each call ends within seconds, or with ctx. If it ends with an error, what it asked for
// may have been done, but will not be done later, unless it was ctx that ended: then all
// depends on the main stream's still reading the main slot when the server gets to it.
type Slots interface {
	// List returns the brokers that have a slot of their own.
	List(ctx context.Context) ([]int32, error)
	// Copy copies the main slot for a broker, unless it has a slot of its own already. nil
	// means that there is one, on disk.
	Copy(ctx context.Context, broker int32) error
	// Drop drops a broker's own slot. nil means that it is gone.
	Drop(ctx context.Context, broker int32) error
}

// LostError says that a broker which was detached has no slot of its own on a server that
// is another one than before, as after a failover: what it had not got is in no slot.
type LostError struct {
	Broker int32
	// From is up to where it had confirmed everything, 0 if that is not known; To is where
	// the main slot goes on.
	From, To pglogrepl.LSN
}

func (e *LostError) Error() string {
	return fmt.Sprintf("broker %d was detached, and its slot is gone; what it has not got between %s and %s is lost to it", e.Broker, e.From, e.To)
}

// Main is the main stream and what it delivers to.
type Main interface {
	// Begin prepares for a stream that starts at from, with these brokers detached.
	Begin(from pglogrepl.LSN, detached []int32, sameHistory bool)
	// Stuck returns the brokers that keep others waiting for the given time.
	Stuck(after time.Duration) []int32
	// Detach gives up what is held for a broker and passes its messages over from now on,
	// unless it is not stuck any more (false).
	Detach(broker int32, stuck time.Duration) bool
	// Cut keeps what comes for a broker from behind the returned position on.
	Cut(broker int32) decoder.Position
	// Undo gives up what was kept since Cut; Join delivers it.
	Undo(broker int32)
	Join(broker int32)
	// Received is the position up to which the stream has received everything.
	Received() pglogrepl.LSN
}

// Lane is the stream from a broker's own slot.
type Lane interface {
	// Run streams until ctx ends, or an error that trying again does not cure. If the
	// cause of ctx's end is Abandoned it returns at once, else it delivers what it has.
	Run(ctx context.Context) error
	// Confirmed is the position up to which everything is confirmed, 0 without a stream.
	Confirmed() pglogrepl.LSN
	// Working tells whether it streams and its broker takes messages.
	Working() bool
}

// Config is what a Coordinator works with.
type Config struct {
	Main Main
	// Lane makes the stream for a detached broker's own slot. It is called again for
	// each main stream.
	Lane func(broker int32) Lane
	// Abandoned is the cause with which a Lane's ctx ends if it is to return at once.
	Abandoned error
	// After is how long a broker may be stuck before it is detached; 0 is for ever.
	After time.Duration
	// Changed, if set, is called when a broker is detached (true) or has joined the others.
	Changed func(broker int32, detached bool)
}

const (
	// lookEvery is how often is looked for brokers that are stuck.
	lookEvery = 250 * time.Millisecond
	// replacedAfter is how soon a daemon that was replaced by another one notices. Until
	// then a slot that is gone may have been dropped by that one, as it should be.
	replacedAfter = 5 * time.Second
	// sweepEvery is how often is looked for slots that nobody needs.
	sweepEvery = 10 * time.Second
)

// Coordinator detaches brokers and lets them rejoin, for one main stream at a time.
type Coordinator struct {
	cfg    Config
	log    *slog.Logger
	failed chan error // capacity 1

	mu       sync.Mutex // guards all below
	history  string     // of the last main stream
	lanes    map[int32]Lane
	detached map[int32]standing // for all that this process knows, over main streams
}

// standing is how far a detached broker has got.
type standing struct {
	// confirmed is the position up to which it had confirmed everything when it was seen
	// last, 0 if that is not known.
	confirmed pglogrepl.LSN
	// complete says that it has all that the main stream has passed over.
	complete bool
}

// New makes a Coordinator; Begin starts it.
func New(cfg Config, log *slog.Logger) *Coordinator {
	if cfg.Changed == nil {
		cfg.Changed = func(int32, bool) {}
	}
	return &Coordinator{cfg: cfg, log: log, failed: make(chan error, 1), lanes: make(map[int32]Lane), detached: make(map[int32]standing)}
}

// Failed gives the first error of a lane that trying again does not cure.
func (c *Coordinator) Failed() <-chan error { return c.failed }

// Lanes returns the streams of the brokers that are detached now.
func (c *Coordinator) Lanes() []Lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Lane, 0, len(c.lanes))
	for _, l := range c.lanes {
		out = append(out, l)
	}
	return out
}

// epoch is the life of one main stream.
type epoch struct {
	*Coordinator
	slots   Slots
	at      Start
	ctx     context.Context //nolint:containedctx // the epoch is that context and what runs in it
	running sync.WaitGroup
}

// Start is where a main stream starts: behind the slot's confirmed position, or behind a
// later one up to which this process remembers to have had everything confirmed.
type Start struct {
	Confirmed, Remembered pglogrepl.LSN
	History               string // positions of another history cannot be compared
	// LostWAL says that the server has lost WAL since the main stream before: positions mean
	// something else, although the history is the same.
	LostWAL bool
	// Others says that another process is known to have read the main slot since then.
	Others bool
}

// Begin starts with a main stream that has just started and has delivered nothing yet.
// It looks for the slots of detached brokers, and starts their streams. end ends all of
// them and waits; it must be called when the main stream has ended. The end of ctx
// ends them too, with all delivered that they have.
//
// forget says that the stream must start at Confirmed. That is so if a broker which this
// process had detached has no slot any more: another daemon let it rejoin, and only the
// main slot keeps now what this process has passed over. If it cannot have been another
// daemon, the error is a *LostError.
func (c *Coordinator) Begin(ctx context.Context, slots Slots, at Start) (end func(), forget bool, err error) {
	detached, err := slots.List(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("look for slots of detached brokers: %w", err)
	}
	same, joined, err := c.remember(detached, at)
	if err != nil {
		return nil, false, err
	}
	for _, broker := range joined {
		c.cfg.Changed(broker, false)
	}
	from := at.Remembered
	if forget = len(joined) > 0; forget {
		from = at.Confirmed
	}
	c.cfg.Main.Begin(from, detached, same)

	ctx, abandon := context.WithCancelCause(ctx)
	e := &epoch{Coordinator: c, slots: slots, at: at, ctx: ctx}
	for _, broker := range detached {
		e.start(broker, 0)
	}
	if c.cfg.After > 0 {
		e.running.Go(e.watch)
	}
	return func() {
		abandon(c.cfg.Abandoned)
		e.running.Wait()
	}, forget, nil
}

// remember takes over which brokers are detached now. same tells whether positions mean
// what they did before; joined are the brokers that are not detached any more.
func (c *Coordinator) remember(detached []int32, at Start) (same bool, joined []int32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	same = c.history == at.History && !at.LostWAL
	for broker, was := range c.detached {
		if slices.Contains(detached, broker) {
			if !same {
				c.detached[broker] = standing{} // of another server's slot
			}
			continue
		}
		if err := c.missing(broker, was, at, same); err != nil {
			return same, nil, err
		}
		joined = append(joined, broker)
	}
	for _, broker := range joined {
		delete(c.detached, broker)
	}
	c.history = at.History
	clear(c.lanes)
	return same, joined, nil
}

// missing judges why a broker that was detached has no slot any more. Another daemon may
// have let it rejoin. A server that is another one than before, or has lost WAL, may never
// have had the slot: then nobody else is left to have what the main stream has passed over.
func (c *Coordinator) missing(broker int32, was standing, at Start, same bool) error {
	log := c.log.With(attr(broker), slog.String("from", was.confirmed.String()), slog.String("to", at.Confirmed.String()))
	switch {
	case was.complete || was.confirmed != 0 && was.confirmed >= at.Confirmed: // the main slot keeps the rest
	case same && at.Others:
		log.Info("another daemon has let a detached broker join the others again")
	case same || at.Others:
		log.Error("slot of a detached broker is gone; unless another daemon has let it rejoin, what it has not got between these positions is lost to it")
	default:
		return &LostError{Broker: broker, From: was.confirmed, To: at.Confirmed}
	}
	return nil
}

// watch detaches brokers that are stuck.
func (e *epoch) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	swept := time.Now()
	retry := make(map[int32]time.Time) // when to try again what has failed
	for {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			return
		}
		for _, broker := range e.cfg.Main.Stuck(e.cfg.After) {
			// One that is about to rejoin is stuck because it has to wait for that.
			if e.hasLane(broker) || time.Now().Before(retry[broker]) {
				continue
			}
			if err := e.detach(broker); err != nil && e.ctx.Err() == nil {
				retry[broker] = time.Now().Add(e.cfg.After)
				e.log.Error("cannot detach a broker that takes no messages; it holds up the others", attr(broker), slog.Any("error", err))
			}
		}
		if time.Since(swept) >= sweepEvery {
			e.sweep()
			swept = time.Now()
		}
	}
}

// sweep drops slots that keep WAL for a broker that is not detached. Such a slot was made
// in this epoch, by a Copy whose answer was late or by a detachment that was called off:
// the main stream has all that is in it.
func (e *epoch) sweep() {
	there, err := e.slots.List(e.ctx)
	if err != nil {
		return // the next time
	}
	for _, broker := range there {
		if e.hasLane(broker) {
			continue
		}
		if err := e.slots.Drop(e.ctx, broker); err == nil {
			e.log.Info("dropped a slot that nobody needs", attr(broker))
		}
	}
}

// hasLane tells whether a broker is detached or about to rejoin.
func (e *epoch) hasLane(broker int32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lanes[broker] != nil
}

// detach gives a broker a slot of its own. Whatever fails, the main stream has given
// up nothing without it.
func (e *epoch) detach(broker int32) error {
	if err := e.slots.Copy(e.ctx, broker); err != nil {
		return err
	}
	if !e.cfg.Main.Detach(broker, e.cfg.After) { // it has recovered meanwhile
		return e.slots.Drop(e.ctx, broker)
	}
	e.log.Warn("broker takes no messages and is detached: it has a slot of its own until it has caught up", attr(broker))
	e.start(broker, e.at.Confirmed)
	return nil
}

// confirmed asks a lane up to where everything is confirmed, and remembers it: nobody else
// can tell when the slot is gone.
func (e *epoch) confirmed(broker int32, lane Lane) pglogrepl.LSN {
	at := lane.Confirmed()
	e.mu.Lock()
	defer e.mu.Unlock()
	if at != 0 {
		e.detached[broker] = standing{confirmed: at}
	}
	return at
}

// complete notes whether a broker has all that the main stream has passed over for it.
func (e *epoch) complete(broker int32, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.detached[broker] = standing{confirmed: e.detached[broker].confirmed, complete: is}
}

// start runs the lane of a detached broker, whose slot is confirmed at least up to from.
func (e *epoch) start(broker int32, from pglogrepl.LSN) {
	lane := e.cfg.Lane(broker)
	e.mu.Lock()
	e.lanes[broker], e.detached[broker] = lane, standing{confirmed: max(from, e.detached[broker].confirmed)}
	e.mu.Unlock()
	e.cfg.Changed(broker, true)
	e.running.Go(func() {
		joined, err := e.run(broker, lane)
		switch {
		case joined:
			e.mu.Lock()
			delete(e.lanes, broker) // only now: until then its slot is needed
			delete(e.detached, broker)
			e.mu.Unlock()
			e.cfg.Changed(broker, false)
			e.log.Info("broker has caught up and joined the others again", attr(broker))
		case err != nil && backoff.Sleep(e.ctx, replacedAfter) == nil:
			select {
			case e.failed <- fmt.Errorf("broker %d, which is detached: %w", broker, err):
			default:
			}
		}
	})
}

// attr is the attribute under which logs name a broker.
func attr(broker int32) slog.Attr { return slog.String("broker", strconv.Itoa(int(broker))) }
