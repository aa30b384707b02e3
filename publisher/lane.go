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
	hosts  []Host
	gone   bool // the broker was deleted
	down   time.Time
	err    error // why the lane is down
	halts  int   // resets under way: nothing is published while there are any
	// interrupt ends the current connection, or the attempt at one.
	interrupt context.CancelFunc

	// All of capacity 1; a token means: look again.
	work    chan struct{} // for the publish loop: something was added
	space   chan struct{} // for add: the window has room
	settled chan struct{} // for the publish loop: at most one entry is in flight
	drained chan struct{} // for drain: the window is empty
	retired chan struct{} // closed by retire

	// pumping is held while a channel is in use. Taken before mu.
	pumping sync.Mutex

	// Used by run's goroutine only.
	targets  map[target]bool // known to take messages
	nackWait *backoff.Backoff
}

func newLane(b Broker, cfg Config, log *slog.Logger, m *metrics.Broker) *lane {
	l := &lane{
		id: b.ID, cfg: cfg, metrics: m,
		log:     log.With(slog.String("broker", strconv.Itoa(int(b.ID)))),
		window:  window{maxCount: cfg.WindowMessages, maxBytes: cfg.WindowBytes},
		hosts:   b.Hosts,
		down:    time.Now(),
		work:    make(chan struct{}, 1),
		space:   make(chan struct{}, 1),
		settled: make(chan struct{}, 1),
		drained: make(chan struct{}, 1),
		retired: make(chan struct{}),

		interrupt: func() {},
		targets:   make(map[target]bool),
		nackWait:  backoff.New(50*time.Millisecond, 5*time.Second),
	}
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

// errRetired says that the broker was deleted.
var errRetired = errors.New("the broker was deleted from amqp.broker")

// add appends an entry and blocks while the window is full. Only one goroutine
// adds. errRetired means that the broker is no more.
func (l *lane) add(ctx context.Context, e *entry) error {
	l.mu.Lock()
	for waited := false; l.window.full(e.size); {
		if !waited {
			waited = true
			l.metrics.Window.Backpressure.Start()
			defer l.metrics.Window.Backpressure.Stop()
		}
		l.mu.Unlock()
		select {
		case <-l.space:
		case <-l.retired:
			return errRetired
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.mu.Lock()
	}
	if l.gone {
		l.mu.Unlock()
		return errRetired
	}
	l.window.add(e)
	l.measure()
	l.mu.Unlock()
	signal(l.work)
	return nil
}

// measure brings the gauges up to date. The lock is held.
func (l *lane) measure() {
	l.metrics.Unconfirmed.Set(float64(l.window.pending))
	l.metrics.Window.Bytes.Set(float64(l.window.bytes))
}

// take returns the next entry to be published, nil if there is none.
func (l *lane) take() *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.window.take()
	if e != nil {
		l.measure()
	}
	return e
}

// pending returns the number of entries in flight.
func (l *lane) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.window.pending
}

// resolve gives an entry its final verdict: it is safe, here or as a dead letter.
func (l *lane) resolve(e *entry) {
	l.mu.Lock()
	over := e.forgotten || e.resolved
	l.mu.Unlock()
	if over {
		return
	}
	// First, or Drain could see an empty window and the position be reported for the last
	// time before this message counts.
	e.done()
	l.mu.Lock()
	l.window.resolve(e)
	settled, drained := l.window.pending <= 1, l.window.len() == 0
	l.measure()
	l.mu.Unlock()
	signal(l.space)
	if settled {
		signal(l.settled)
	}
	if drained {
		signal(l.drained)
	}
}

// has tells whether these are the lane's hosts.
func (l *lane) has(hosts []Host) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Equal(l.hosts, hosts)
}

// update gives the lane new hosts; it reconnects.
func (l *lane) update(hosts []Host) {
	l.mu.Lock()
	l.hosts = hosts
	l.interrupt()
	l.mu.Unlock()
	l.setHosts(hosts)
	l.log.Info("broker changed, reconnecting")
}

// retire ends the lane of a broker that was deleted: what it still holds becomes
// dead letters.
func (l *lane) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	signal(l.space)
	signal(l.drained)
}

// drain waits until all entries are resolved. It returns an error when ctx ends,
// or when the lane has no working connection for longer than patience.
func (l *lane) drain(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		l.mu.Lock()
		n, down, err := l.window.len(), l.down, l.err
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

// setDown says that the lane cannot deliver, and why; setUp that it can.
func (l *lane) setDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.IsZero() {
		l.down = time.Now()
	}
	l.err = err
}

func (l *lane) setUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.err = time.Time{}, nil
}

// status returns since when the lane is down (zero: it is not), why, and how many
// messages it holds.
func (l *lane) status() (down time.Time, err error, held int) { //nolint:revive,staticcheck // the error is a fact here, not a result
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down, l.err, l.window.len()
}

// run connects and publishes until ctx ends, or the lane is retired and empty.
func (l *lane) run(ctx context.Context) {
	wait := backoff.New(100*time.Millisecond, reconnectMax)
	var repeats backoff.Repeats
	for host := 0; ctx.Err() == nil; {
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
		began := time.Now()
		err := l.connect(epoch, hosts[host%len(hosts)])
		if err != nil && epoch.Err() == nil {
			l.setDown(err)
			if repeats.Worth(err.Error(), time.Now()) {
				l.log.Warn("no connection to broker, trying again", slog.Any("error", err))
			}
			if time.Since(began) > time.Minute {
				wait.Reset()
			}
			host++
			if host%len(hosts) == 0 || time.Since(began) > time.Second {
				_ = wait.Wait(epoch) // the whole list was tried, or this connection did work
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
	case denied(err):
		l.metrics.Connects.Denied.Inc()
		return err
	default:
		l.metrics.Connects.Unreachable.Inc()
		return err
	}
	l.metrics.Connected(h.Address())
	l.log.Info("connected to broker", slog.Any("host", h))
	l.setUp()
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
		case end.nacked:
			_ = l.nackWait.Wait(ctx)
		}
	}
	return nil
}

func (l *lane) onBlocked(blocked bool, reason string) {
	l.metrics.SetBlocked(blocked)
	if blocked {
		l.setDown(errors.New("the broker has an alarm and takes no messages: " + reason))
		l.log.Warn("blocked by broker", slog.String("reason", reason))
		return
	}
	l.setUp()
	l.log.Info("resumed by broker")
}
