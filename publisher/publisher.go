package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/metrics"
)

// Config says how much to hold and where definitions come from and dead letters
// go.
type Config struct {
	// WindowMessages and WindowBytes bound what each broker is sent ahead of its
	// confirms, and with it memory and the number of duplicates after a failure.
	WindowMessages, WindowBytes int
	// NackRetry is how long a message that the broker could not store is tried again
	// before it becomes a dead letter.
	NackRetry time.Duration
	Headers   Headers
	// ConnectionName is shown by the broker's management.
	ConnectionName string

	// Brokers reads the current definitions; if xid is not 0, such that the changes of
	// that transaction are among them. Called from one goroutine at a time.
	Brokers func(ctx context.Context, xid uint32) ([]Broker, error)
	// Open, if set, returns the content of a message without its signature, if it has one, and an error for
	// what amqp.publish has not written. Called from one goroutine at a time of each Publisher, once the
	// definitions were read.
	Open func(decoder.Message) ([]byte, error)
	// Outdated, set with Open and called as it is, tells whether definitions that are read anew can say otherwise
	// of a message that Open has refused.
	Outdated func(decoder.Message) bool
	// Rows turns changes of rows into messages. Without it they are passed over.
	Rows Rows
	// DeadLetter stores a letter durably before it returns nil; a letter with an
	// Origin that is stored already replaces it. Called from several goroutines.
	DeadLetter func(context.Context, DeadLetter) error
	// Settled, if set, is told of each message that has its verdict. Called from several
	// goroutines; it must not block, and may keep nothing but strings.
	Settled func(*Settled)
	// Hold, if set, is told of the bytes that windows hold more than before, or less. Called
	// from several goroutines, with locks held; it must not block.
	Hold func(more int)

	settleBefore time.Duration // another one than settleBefore, for tests
}

// Rows turns changes of rows into messages. Publish calls it, so from one goroutine at a
// time. It may block for as long as the database cannot be asked; an error means that ctx
// ended.
type Rows interface {
	// Messages returns what a change, or a message of a prefix that is not ours, becomes, with
	// contents as amqp.publish writes them.
	Messages(context.Context, *decoder.Message) ([]decoder.Message, error)
	// Told is told of a message for it: of kind KindRoutesChanged, KindSnapshotsChanged or
	// KindSnapshotChunk. It returns what is to be published in its place.
	Told(context.Context, *decoder.Message, *decoder.Envelope) ([]decoder.Message, error)
}

// Metrics are those that the publisher feeds.
type Metrics struct {
	Brokers  *metrics.Publisher
	Received metrics.Received
	Skipped  metrics.Skipped
}

// Publisher hands each message to the lane of its broker. Publish and Drain are
// called by one goroutine at a time, Run and Status by others.
type Publisher struct {
	cfg     Config
	log     *slog.Logger
	metrics Metrics
	letters *letterLog // those that belong to no lane

	reading chan struct{} // capacity 1: held while definitions are read
	ready   chan struct{} // closed when they were read once

	// own is set for the stream of one broker's own slot: it delivers that broker's
	// messages only, as far as the gate says.
	own *ownStream

	wait wait // what Publish waits for

	mu      sync.Mutex // guards all below; taken before the lock of a gate or a lane
	lanes   map[int32]*lane
	gates   map[int32]*Gate  // of all that are defined or detached; not used with own
	brokers map[int32]Broker // as read last
	from    pglogrepl.LSN    // where the stream starts
	loaded  bool
	start   func(*lane) // makes a lane run; set by Run
}

// New makes a Publisher; Run does the work.
func New(cfg Config, log *slog.Logger, m Metrics) *Publisher {
	return &Publisher{
		cfg: cfg, log: log, metrics: m, letters: newLetterLog(log),
		reading: make(chan struct{}, 1),
		ready:   make(chan struct{}),
		lanes:   make(map[int32]*lane),
		gates:   make(map[int32]*Gate),
	}
}

// Run reads definitions and keeps a lane for each broker until ctx ends. What is
// unresolved then stays unresolved: Drain first.
func (p *Publisher) Run(ctx context.Context) error {
	defer p.letters.close()
	var lanes sync.WaitGroup
	defer lanes.Wait()
	p.mu.Lock()
	p.start = func(l *lane) {
		lanes.Go(func() {
			l.run(ctx)
			p.forget(l.id)
		})
	}
	p.mu.Unlock()
	p.keepDefinitions(ctx)
	return nil
}

// forget drops the metrics of a broker that was deleted, once its lane has ended.
func (p *Publisher) forget(id int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, defined := p.brokers[id]; !defined && p.lanes[id] == nil {
		p.metrics.Brokers.Forget(id)
	}
}

// Publish takes m over and returns. It blocks while the window of m's broker is
// full, while a dead letter cannot be stored, and until definitions were read
// once. An error means that ctx ended. done is called once m is safe.
func (p *Publisher) Publish(ctx context.Context, m decoder.Message, done func()) error {
	if m.Change != nil || m.Prefix != decoder.Prefix {
		return p.publishOther(ctx, m, done)
	}
	if p.cfg.Open != nil {
		content, err := p.unseal(ctx, m)
		if err != nil {
			return p.forged(ctx, m, err, done)
		}
		m.Content = content
	}
	return p.publish(ctx, m, done)
}

// unseal takes the signature off. If the message may be the one that tells of a new key the definitions are read once
// more; not for each that is refused, or who forges many would have that done before each of them.
func (p *Publisher) unseal(ctx context.Context, m decoder.Message) ([]byte, error) {
	select {
	case <-p.ready:
	default:
		p.wait.begin(errors.New("read amqp.broker"))
		err := p.awaitReady(ctx)
		p.wait.end()
		if err != nil {
			return nil, err
		}
	}
	if content, err := p.cfg.Open(m); err == nil || !p.cfg.Outdated(m) {
		return content, err
	}
	if err := p.read(ctx, m.XID); err != nil {
		return nil, err
	}
	return p.cfg.Open(m)
}

// forged makes a dead letter of a message that amqp.publish has not written. What is left of a
// broker's own stream to the main one includes it.
func (p *Publisher) forged(ctx context.Context, m decoder.Message, err error, done func()) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case p.own != nil:
		p.metrics.Skipped.OtherStream.Inc()
		done()
		return nil
	}
	return p.bury(ctx, &m, &decoder.Envelope{}, verdict{reason: ReasonForged, text: err.Error()}, done)
}

// publishOther is Publish for what amqp.publish has not written: a change of a row, or a message
// of another prefix, which may become several messages, or none.
func (p *Publisher) publishOther(ctx context.Context, m decoder.Message, done func()) error {
	received, skipped := p.metrics.Received.Row, p.metrics.Skipped.Row
	if m.Change == nil {
		received, skipped = p.metrics.Received.Foreign, p.metrics.Skipped.ForeignPrefix
	}
	received.Inc()
	var messages []decoder.Message
	if p.cfg.Rows != nil {
		var err error
		if messages, err = p.cfg.Rows.Messages(ctx, &m); err != nil {
			return err
		}
	}
	if len(messages) == 0 {
		skipped.Inc()
	}
	return p.publishAll(ctx, messages, done)
}

// publishAll is publish for messages that take the place of one.
func (p *Publisher) publishAll(ctx context.Context, messages []decoder.Message, done func()) error {
	if len(messages) == 0 {
		done()
		return nil
	}
	done = onceAll(len(messages), done)
	for _, m := range messages {
		if err := p.publish(ctx, m, done); err != nil {
			return err
		}
	}
	return nil
}

// onceAll returns what calls done when it was called n times.
func onceAll(n int, done func()) func() {
	if n == 1 {
		return done
	}
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}

// publish is Publish for what amqp.publish has written, or could have.
func (p *Publisher) publish(ctx context.Context, m decoder.Message, done func()) error {
	e, err := decoder.ParseEnvelope(m.Content)
	if p.own != nil && (err != nil || !p.own.concerns(&e)) {
		p.metrics.Skipped.OtherStream.Inc()
		done()
		return nil
	}
	if err != nil {
		return p.bury(ctx, &m, &e, verdict{reason: ReasonUndecodable, text: err.Error()}, done)
	}
	switch e.Kind {
	case decoder.KindPing, decoder.KindBrokersChanged:
		p.metrics.Received.Control.Inc()
		if e.Kind == decoder.KindBrokersChanged { // holds for all that follows
			if err := p.read(ctx, m.XID); err != nil {
				return err
			}
		}
		done()
		return nil
	case decoder.KindRoutesChanged, decoder.KindSnapshotsChanged, decoder.KindSnapshotChunk:
		return p.tell(ctx, m, e, done)
	case decoder.KindHeartbeat:
		p.metrics.Received.Heartbeat.Inc()
		done()
		return nil
	}
	p.count(&m, &e)
	entry := &entry{message: m, done: done, size: len(m.Content) + entryOverhead}
	for {
		delivered, err := p.deliver(ctx, entry, &e)
		if delivered || err != nil {
			return err
		}
	}
}

// tell is publish for what concerns changes of rows.
func (p *Publisher) tell(ctx context.Context, m decoder.Message, e decoder.Envelope, done func()) error {
	p.metrics.Received.Control.Inc()
	tell := p.cfg.Rows != nil
	if tell && p.own != nil && e.Kind == decoder.KindSnapshotChunk {
		var err error // what the main stream has delivered of it concerns nobody
		if tell, err = p.own.gate.ServesLane(ctx, m.Position()); err != nil {
			return err
		}
	}
	var messages []decoder.Message
	if tell {
		var err error
		if messages, err = p.cfg.Rows.Told(ctx, &m, &e); err != nil {
			return err
		}
	}
	return p.publishAll(ctx, messages, done)
}

// deliver hands an entry to the lane of its broker, or sees to it in another way.
// false without an error means that the lane has ended in this moment: try again.
func (p *Publisher) deliver(ctx context.Context, entry *entry, e *decoder.Envelope) (bool, error) {
	m := &entry.message
	l, serves, err := p.lane(ctx, e.BrokerID, m.Position())
	switch {
	case err != nil:
		return false, err
	case !serves:
		p.metrics.Skipped.OtherStream.Inc()
		entry.done()
		return true, nil
	case l == nil:
		return true, p.bury(ctx, m, e, verdict{
			reason: ReasonUnknownBroker,
			text:   fmt.Sprintf("amqp.broker has no broker_id %d", e.BrokerID),
		}, entry.done)
	}
	if entry.request, err = route(m, e, p.cfg.Headers); err != nil {
		return true, p.bury(ctx, m, e, verdict{reason: ReasonInvalid, text: err.Error()}, entry.done)
	}
	if err = l.add(ctx, entry); errors.Is(err, errRetired) {
		return false, nil
	}
	return true, err
}

func (p *Publisher) count(m *decoder.Message, e *decoder.Envelope) {
	switch {
	case e.Kind == decoder.KindDisconnect:
		p.metrics.Received.Control.Inc()
	case e.Kind != decoder.KindPublish:
		p.metrics.Received.Declare.Inc()
	case m.Transactional:
		p.metrics.Received.Publish.Inc()
	default:
		p.metrics.Received.Autonomous.Inc()
	}
}

// bury stores a message that belongs to no lane.
func (p *Publisher) bury(ctx context.Context, m *decoder.Message, e *decoder.Envelope, v verdict, done func()) error {
	d := newDeadLetter(m, e, v)
	if d.MessageID == "" {
		d.MessageID = d.Origin
	}
	p.wait.begin(errors.New("store a dead letter"))
	defer p.wait.end()
	if !p.cfg.bury(ctx, p.log, d, p.wait.failed) {
		return context.Cause(ctx)
	}
	p.letters.add(&d)
	p.metrics.Brokers.Unaddressed(v.reason).Inc()
	done()
	return nil
}

// lane returns the lane of a broker, nil if there is no such broker, and whether the
// message at pos is this stream's to deliver. Changes are announced in the stream; a
// definition that came another way (a restored table, a disabled trigger) is looked
// for once more.
func (p *Publisher) lane(ctx context.Context, id int32, pos decoder.Position) (l *lane, serves bool, err error) {
	for look := 0; ; look++ {
		p.mu.Lock()
		l, gate := p.lanes[id], p.gates[id]
		p.mu.Unlock()
		// A lane that ends between the look and the answer does not take the message, and
		// the caller asks again.
		if serves, err := p.serves(ctx, gate, pos); err != nil || !serves {
			return nil, false, err
		}
		if l != nil || look > 0 {
			return l, true, nil
		}
		if err := p.read(ctx, 0); err != nil {
			return nil, false, err
		}
	}
}

// read reads the definitions again, after Run has done so once.
func (p *Publisher) read(ctx context.Context, xid uint32) error {
	p.wait.begin(errors.New("read amqp.broker"))
	defer p.wait.end()
	if err := p.awaitReady(ctx); err != nil {
		return err
	}
	return p.refresh(ctx, xid)
}

// awaitReady waits until Run has read the definitions once.
func (p *Publisher) awaitReady(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patience is how long Drain waits for a broker that is not available.
const patience = time.Second

// Drain waits until everything is resolved. It gives up on a lane when ctx ends,
// or when its broker is not available; then it forgets what the lane holds and
// returns an error.
func (p *Publisher) Drain(ctx context.Context) error {
	p.mu.Lock()
	lanes := make([]*lane, 0, len(p.lanes))
	for _, l := range p.lanes {
		lanes = append(lanes, l)
	}
	p.mu.Unlock()
	errs := make([]error, len(lanes))
	var all sync.WaitGroup
	for i, l := range lanes {
		all.Go(func() {
			if errs[i] = l.drain(ctx, patience); errs[i] != nil {
				l.reset()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
