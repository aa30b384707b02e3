package publisher

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/metrics"
)

// lane carries the messages of one broker, in order: one connection, one channel,
// one window. Its goroutine (run) owns the connection and publishes; the confirm
// loop of the current channel resolves what was published.
type lane struct {
	id      int32
	cfg     Config
	log     *slog.Logger
	metrics *metrics.Broker

	mu     sync.Mutex // guards all below
	window window
	told   int // bytes of the window that others know of
	hosts  []Host
	policy Policy
	gone   bool      // the broker was deleted, or its messages go another way
	fed    time.Time // when something was added last
	waits  time.Time // since when add waits for room; zero: it does not
	down   time.Time
	err    error // why the lane is down
	// moved is when the last verdict came, or the first message into an empty window.
	moved   time.Time
	trouble error // what has kept verdicts back since then, as far as is known
	halts   int   // resets under way: nothing is published while there are any
	// interrupt ends the current connection, or the attempt at one.
	interrupt context.CancelFunc

	// All of capacity 1; a token means: look again.
	work    chan struct{} // for the publish loop: something was added
	space   chan struct{} // for add: the window has room
	roomy   chan struct{} // for add: the window has much room
	settled chan struct{} // for the publish loop: at most one entry is in flight
	drained chan struct{} // for drain: the window is empty
	hurry   chan struct{} // for pause: what is to be sent again is tried at once
	retired chan struct{} // closed when gone is set
	ended   chan struct{} // closed when run has returned
	// released is closed, by release, when the lane may connect. Both are nil if it may
	// from the beginning.
	released chan struct{}
	release  func()

	// pumping is held while a channel is in use. Taken before mu.
	pumping sync.Mutex

	// Used by run's goroutine only.
	targets   map[target]bool // known to take messages
	nackWait  *backoff.Backoff
	holdPause holdPause
	refusals  backoff.Repeats

	drops   tally
	letters *letterLog
}

func newLane(b Broker, cfg Config, log *slog.Logger, m *metrics.Broker) *lane {
	l := &lane{
		id: b.ID, cfg: cfg, metrics: m,
		log:     log.With(slog.String("broker", strconv.Itoa(int(b.ID)))),
		window:  window{maxCount: cfg.WindowMessages, maxBytes: cfg.WindowBytes},
		hosts:   b.Hosts,
		policy:  b.Policy,
		down:    time.Now(),
		work:    make(chan struct{}, 1),
		space:   make(chan struct{}, 1),
		roomy:   make(chan struct{}, 1),
		settled: make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		retired: make(chan struct{}),
		ended:   make(chan struct{}),

		interrupt: func() {},
		targets:   make(map[target]bool),
		nackWait:  backoff.New(50*time.Millisecond, 5*time.Second),
		holdPause: holdPause{wait: backoff.New(holdMin, holdMax)},
	}
	l.letters = newLetterLog(l.log)
	m.UnconfirmedWindow.Set(float64(cfg.WindowMessages))
	m.Window.LimitBytes.Set(float64(cfg.WindowBytes))
	l.setHosts(b.Hosts)
	return l
}

func (l *lane) setHosts(hosts []Host) {
	addresses := make([]string, len(hosts))
	for i, h := range hosts {
		addresses[i] = h.Address()
	}
	l.metrics.SetHosts(addresses...)
}

// measure brings the gauges up to date. The lock is held.
func (l *lane) measure() {
	l.metrics.Unconfirmed.Set(float64(l.window.pending))
	l.measureBytes()
	held := 0.0
	if l.holding() != nil {
		held = 1
	}
	l.metrics.Holding.Set(held)
}

// take returns the next entry to be published, nil if there is none.
func (l *lane) take() *entry {
	e, _ := l.next()
	return e
}

// next is take that tells whether there is one more.
func (l *lane) next() (e *entry, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e = l.window.take()
	if e != nil {
		l.metrics.Unconfirmed.Set(float64(l.window.pending))
	}
	return e, l.window.waiting()
}

// pending returns the number of entries in flight.
func (l *lane) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.window.pending
}

// resolve gives entries their final verdict: they are safe, here or as dead letters. The
// slice is not the caller's any more.
func (l *lane) resolve(entries ...*entry) {
	l.mu.Lock()
	entries = slices.DeleteFunc(entries, func(e *entry) bool {
		over := e.forgotten || e.claimed
		e.claimed = true // by whoever comes first: done is called once
		return over
	})
	l.mu.Unlock()
	if len(entries) == 0 {
		return
	}
	// First, or Drain could see an empty window and the position be reported for the last
	// time before these messages count.
	for _, e := range entries {
		e.done()
	}
	l.mu.Lock()
	for _, e := range entries {
		l.window.resolve(e)
	}
	l.moved, l.trouble = time.Now(), nil
	waits, roomy := !l.waits.IsZero(), l.window.roomy()
	settled, drained := l.window.pending <= 1, l.window.len() == 0
	l.measure()
	l.mu.Unlock()
	if waits {
		l.tellRoom(roomy)
	}
	if settled {
		signal(l.settled)
	}
	if drained {
		signal(l.drained)
	}
}

// has tells whether the lane has these hosts and this policy.
func (l *lane) has(b Broker) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Equal(l.hosts, b.Hosts) && l.policy.equal(b.Policy)
}

// update gives the lane a new definition. It reconnects if the hosts are others.
func (l *lane) update(b Broker) {
	l.setPolicy(b.Policy)
	l.mu.Lock()
	if slices.Equal(l.hosts, b.Hosts) {
		l.mu.Unlock()
		l.log.Info("broker changed", slog.String("on_reject", string(b.Policy.OnReject)))
		return
	}
	l.hosts = b.Hosts
	l.interrupt()
	l.mu.Unlock()
	l.setHosts(b.Hosts)
	l.log.Info("broker changed, reconnecting")
}

// retire ends the lane of a broker that was deleted: what it still holds becomes
// dead letters.
func (l *lane) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// end makes run end. The lock is held.
func (l *lane) end() {
	if !l.gone {
		l.gone = true
		close(l.retired)
		l.interrupt()
	}
}

// reset forgets all entries and ends the current channel. What was in flight may
// have reached the broker all the same.
func (l *lane) reset() {
	l.mu.Lock()
	l.halts++
	l.interrupt()
	l.mu.Unlock()
	l.pumping.Lock()
	l.mu.Lock()
	l.window.clear()
	l.halts--
	l.measure()
	l.mu.Unlock()
	l.pumping.Unlock()
	l.tellRoom(true)
	signal(l.drained)
}

// drain waits until all entries are resolved. It returns an error when ctx ends,
// or when the lane has no working connection for longer than patience.
func (l *lane) drain(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		n := l.window.len()
		down, err := l.unavailable()
		l.mu.Unlock()
		if n == 0 {
			return nil
		}
		if !down.IsZero() && time.Since(down) > patience {
			return errors.Join(errors.New("broker "+strconv.Itoa(int(l.id))+" is not available"), err)
		}
		select {
		case <-l.drained:
		case <-tick.C: // patience ends without a token
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// run connects and publishes until ctx ends, or the lane is retired and empty.
func (l *lane) run(ctx context.Context) {
	defer close(l.ended)
	defer l.uncount()
	defer l.letters.close()
	if l.released != nil {
		select {
		case <-l.released:
		case <-l.retired:
		case <-ctx.Done():
			return
		}
	}
	var next *turns
	var known []Host // that next is about
	for ctx.Err() == nil {
		epoch, interrupt := context.WithCancel(ctx)
		l.mu.Lock()
		hosts, gone := l.hosts, l.gone
		l.interrupt = interrupt
		l.mu.Unlock()
		if gone {
			interrupt()
			l.buryAll(ctx)
			return
		}
		if !slices.Equal(hosts, known) { // whatever was wrong with them, they are others
			next, known = newTurns(len(hosts)), hosts
		}
		host, wait := next.pick(time.Now())
		if backoff.Sleep(epoch, wait) == nil {
			began := time.Now()
			err := l.connect(epoch, hosts[host])
			if err != nil && epoch.Err() == nil {
				l.setDown(err)
				if next.failed(host, err, time.Since(began), time.Now()) {
					l.log.Warn("no connection to broker, trying again", slog.Any("error", err))
				}
			}
		}
		interrupt()
	}
}

// connect dials one host and works on the connection until it breaks (an error is
// returned), or is to be made anew, or ctx ends.
func (l *lane) connect(ctx context.Context, h Host) error {
	c, err := dial(ctx, h, l.cfg.ConnectionName, l.onBlocked)
	switch {
	case err == nil:
		l.metrics.Connects.OK.Inc()
	case Denied(err):
		l.metrics.Connects.Denied.Inc()
		return err
	default:
		l.metrics.Connects.Unreachable.Inc()
		return err
	}
	l.metrics.Connected(h.Address())
	l.log.Info("connected to broker", slog.Any("host", h))
	// Some calls of the library wait for the broker whatever happens: a connection
	// that is given up is cut if it does not end by itself.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(settleTimeout+closeTimeout, c.raw.abort) })()
	defer func() {
		c.close()
		l.metrics.Connected("")
		l.metrics.SetBlocked(false)
	}()
	clear(l.targets)
	for ctx.Err() == nil {
		began := time.Now()
		end := l.pump(ctx, c)
		if time.Since(began) > 10*time.Second {
			l.nackWait.Reset()
		}
		switch {
		case end.err != nil || end.reconnect:
			return end.err
		case c.IsClosed():
			return amqp.ErrClosed
		case end.held:
			l.pauseHeld(ctx)
		case end.nacked:
			l.pause(ctx, l.nackWait)
		}
	}
	return nil
}
