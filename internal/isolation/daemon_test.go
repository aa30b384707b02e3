package isolation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/isolation"
	"github.com/pgamqp/pgamqp/publisher"
)

// A daemon of the model: the real coordinator and gates, between streams and lanes that
// move only when the test says so.

const (
	windowSize = 3
	stuckAfter = 10 * time.Second
)

var errAbandoned = errors.New("abandoned")

// entry is a message that a lane holds.
type entry struct {
	message
	done func()
	sent bool
	at   time.Time
}

// lane is the way to one broker.
type lane struct {
	entries []*entry
	held    bool
}

func (l *lane) giveUp(all bool) (first decoder.Position, ok bool) {
	if len(l.entries) == 0 || !all && time.Since(l.entries[0].at) < stuckAfter {
		return decoder.Position{}, false
	}
	first = l.entries[0].message.at
	for _, e := range l.entries {
		e.done()
	}
	l.entries = nil
	return first, true
}

// daemon is one process. It may lead, which is to read the main slot, many times.
type daemon struct {
	w          *world
	random     *rand.Rand // of delays; used with w.mu held
	isolation  *isolation.Coordinator
	gates      map[int32]*publisher.Gate
	lanes      map[int32]*lane // of the main stream
	remembered pglogrepl.LSN
	main       *stream // nil while it does not lead
	starting   bool
	end        func()
	own        map[int32]*ownStream
	dead       bool
	ended      chan struct{} // closed by a crash
	cancel     func()
}

func newDaemon(w *world, seed uint64) *daemon {
	d := &daemon{
		w: w, random: rand.New(rand.NewPCG(seed, uint64(w.pids))), gates: make(map[int32]*publisher.Gate),
		lanes: make(map[int32]*lane), own: make(map[int32]*ownStream),
	}
	d.ended = make(chan struct{})
	d.cancel = sync.OnceFunc(func() { close(d.ended) })
	d.isolation = isolation.New(isolation.Config{
		Main: d, Lane: d.lane, Abandoned: errAbandoned, After: stuckAfter,
	}, quiet())
	for b := range w.delivered {
		d.lanes[b], d.gates[b] = &lane{}, publisher.NewGate(0)
	}
	return d
}

// life is a context that ends with the process.
func (d *daemon) life() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-d.ended
		cancel()
	}()
	return ctx
}

// pause lets time pass between two steps of the protocol, so that other things happen.
func (d *daemon) pause(ctx context.Context) error {
	d.w.mu.Lock()
	delays := []time.Duration{0, time.Millisecond, 30 * time.Millisecond, time.Second, 30 * time.Second}
	delay := delays[d.random.IntN(len(delays))]
	d.w.mu.Unlock()
	return backoff.Sleep(ctx, delay)
}

// lead starts a main stream, if the slot is free. It goes on beside the test.
func (d *daemon) lead() {
	if d.dead || d.starting || d.main != nil || d.w.slots[mainSlot].reader != 0 {
		return
	}
	d.w.pids++
	pid := d.w.pids
	confirmed := d.w.slots[mainSlot].confirmed
	st := d.w.openStream(mainSlot, pid, 0)
	d.starting = true
	d.w.note("process %d reads the main slot, confirmed %s, remembered %s", pid, confirmed, d.remembered)
	go func() {
		end, forget, err := d.isolation.Begin(d.life(), slots{d, pid}, isolation.Start{
			Confirmed: confirmed, Remembered: max(confirmed, d.remembered), History: "1",
		})
		d.w.mu.Lock()
		defer d.w.mu.Unlock()
		if err == nil && !st.alive(d.w) { // lost meanwhile
			d.w.mu.Unlock()
			end()
			d.w.mu.Lock()
			err = errAbandoned
		}
		d.starting = false
		if err != nil {
			d.w.leave(st)
			return
		}
		if forget {
			d.remembered = 0
		}
		d.main, d.end = d.w.openStream(mainSlot, pid, d.remembered), end
	}()
}

func (w *world) leave(st *stream) {
	if st != nil && st.alive(w) {
		w.slots[st.name].reader = 0
	}
}

// stopLeading ends the main stream; the process lives on. w.mu is not held.
func (d *daemon) stopLeading() {
	d.w.mu.Lock()
	st, end := d.main, d.end
	if st == nil {
		d.w.mu.Unlock()
		return
	}
	d.w.faults++
	d.w.note("process %d has lost the main slot", st.pid)
	d.w.leave(st)
	d.w.mu.Unlock()
	end()
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.remembered = max(d.remembered, st.tracker.Flushed())
	d.main = nil
	for _, l := range d.lanes {
		l.entries = nil // unconfirmed: the next stream brings them again
	}
}

// crash ends the process. What its goroutines still do changes only what died with it, and
// what they asked of the server may still be done.
func (d *daemon) crash() {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.dead = true
	d.w.faults++
	d.w.note("a crash of the one that leads: %v", d.main != nil)
	d.w.leave(d.main)
	for _, o := range d.own {
		d.w.leave(o.stream)
		o.stream = nil
	}
	d.main = nil
	d.cancel()
}

// step moves the main stream on by a message or a unit's end.
func (d *daemon) step() {
	if d.main == nil || !d.main.alive(d.w) {
		return
	}
	m, is := d.main.peek(d.w)
	if !is {
		d.w.must(d.main.pass(d.w))
		return
	}
	l := d.lanes[m.broker]
	if !d.gates[m.broker].ServesMain(m.at) {
		d.main.add()()
		return
	}
	if len(l.entries) < windowSize {
		l.entries = append(l.entries, &entry{message: m, done: d.main.add(), at: time.Now()})
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.mistakes = append(w.mistakes, err.Error())
	}
}

// work delivers or confirms one message of a lane.
func (d *daemon) work(l *lane, broker int32) {
	if d.dead || l.held || d.w.down[broker] {
		return
	}
	for i, e := range l.entries {
		if !e.sent {
			e.sent = true
			d.w.delivered[broker] = append(d.w.delivered[broker], e.number)
			return
		}
		if i == 0 && d.random.IntN(2) == 0 {
			l.entries = l.entries[1:]
			e.done()
			return
		}
	}
}

// disconnect makes a lane send again what is not confirmed.
func (l *lane) disconnect() (repeats bool) {
	for _, e := range l.entries {
		repeats = repeats || e.sent
		e.sent = false
	}
	return repeats
}

// The rest is what isolation.Main asks for.

func (d *daemon) Begin(from pglogrepl.LSN, detached []int32, sameHistory bool) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.note("begin from %s, detached %v", from, detached)
	for b, g := range d.gates {
		own := false
		for _, other := range detached {
			own = own || b == other
		}
		g.Begin(from, own, sameHistory)
		// Lanes outlive a stream, as those of a Publisher do: one that is held waits for a Join
		// that will not come.
		d.lanes[b].held = false
	}
}

func (d *daemon) Stuck(after time.Duration) []int32 {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	var out []int32
	for b, l := range d.lanes {
		if !d.dead && len(l.entries) > 0 && time.Since(l.entries[0].at) >= after {
			out = append(out, b)
		}
	}
	return out
}

func (d *daemon) Detach(broker int32, _ time.Duration) bool {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.note("detach %d", broker)
	return d.gates[broker].Detach(func() (decoder.Position, bool) {
		if slices.ContainsFunc(d.lanes[broker].entries, func(e *entry) bool { return e.sent }) {
			d.w.faults++ // it was on its way and is sent again
		}
		return d.lanes[broker].giveUp(false)
	})
}

func (d *daemon) Cut(broker int32) decoder.Position {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.lanes[broker].held = true
	cut := d.gates[broker].Cut()
	d.w.note("cut %d at %v", broker, cut)
	return cut
}

func (d *daemon) Undo(broker int32) {
	_ = d.pause(d.life())
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.note("undo %d", broker)
	d.gates[broker].Undo(func() { d.lanes[broker].giveUp(true) })
	d.lanes[broker].held = false
}

func (d *daemon) Join(broker int32) {
	_ = d.pause(d.life())
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.note("join %d", broker)
	d.gates[broker].Join()
	d.lanes[broker].held = false
}

func (d *daemon) Received() pglogrepl.LSN {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.main == nil {
		return 0
	}
	return d.main.tracker.Received()
}

// ownStream is the stream from a broker's own slot.
type ownStream struct {
	d      *daemon
	broker int32
	stream *stream
	lane   lane
}

func (d *daemon) lane(broker int32) isolation.Lane {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	o := &ownStream{d: d, broker: broker}
	d.own[broker] = o
	return o
}

// Run implements isolation.Lane.
func (o *ownStream) Run(ctx context.Context) error {
	for {
		o.connect()
		if backoff.Sleep(ctx, 500*time.Millisecond) != nil {
			break
		}
	}
	_ = o.d.pause(context.Background())
	o.d.w.mu.Lock()
	defer o.d.w.mu.Unlock()
	o.d.w.leave(o.stream)
	o.stream, o.lane = nil, lane{}
	return nil
}

// connect streams, if it does not and the slot is free.
func (o *ownStream) connect() {
	w := o.d.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.stream != nil && o.stream.alive(w) {
		return
	}
	o.stream, o.lane = nil, lane{}
	if s := w.slots[o.broker]; !o.d.dead && s != nil && s.reader == 0 {
		w.pids++
		w.note("process %d reads the slot of %d", w.pids, o.broker)
		o.stream = w.openStream(o.broker, w.pids, 0)
	}
}

// step moves the stream on.
func (o *ownStream) step() {
	if o.stream == nil || !o.stream.alive(o.d.w) {
		return
	}
	m, is := o.stream.peek(o.d.w)
	switch {
	case !is:
		o.d.w.must(o.stream.pass(o.d.w))
		return
	case m.broker != o.broker:
		o.stream.add()()
		return
	case len(o.lane.entries) == windowSize:
		return
	}
	serve, wait := o.d.gates[o.broker].TryLane(m.at)
	switch {
	case wait != nil:
	case serve:
		o.lane.entries = append(o.lane.entries, &entry{message: m, done: o.stream.add(), at: time.Now()})
	default:
		o.stream.add()()
	}
}

// Confirmed implements isolation.Lane.
func (o *ownStream) Confirmed() pglogrepl.LSN {
	o.d.w.mu.Lock()
	defer o.d.w.mu.Unlock()
	if o.stream == nil {
		return 0
	}
	return o.stream.tracker.Flushed()
}

// Working implements isolation.Lane.
func (o *ownStream) Working() bool {
	o.d.w.mu.Lock()
	defer o.d.w.mu.Unlock()
	return o.stream != nil && o.stream.alive(o.d.w) && !o.d.w.down[o.broker]
}
