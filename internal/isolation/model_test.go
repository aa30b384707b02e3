package isolation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

const brokers = 3

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func timeZero() time.Time { return time.Time{} }

// TestNoHistoryLosesOrReordersAMessage runs the real coordinator and gates through random
// histories of two daemons, of which one at a time reads the main slot. Between every two
// steps of the protocol anything may happen: commits, brokers that fail and return, streams
// that break, a daemon that is replaced or killed, a command whose answer is late or is
// never seen. At any time some slot must keep what no broker has; at the end every
// message has arrived, for the first time in the order of commits, and no broker has a
// slot of its own any more.
func TestNoHistoryLosesOrReordersAMessage(t *testing.T) {
	detached, rejoined := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.Uint64().Draw(r, "seed")
		acts := rapid.SliceOfN(rapid.Custom(drawAct), 20, 150).Draw(r, "acts")
		var failed error
		synctest.Test(t, func(*testing.T) {
			h := newHistory(seed)
			failed = h.live(acts)
			h.stop()
			if failed != nil {
				failed = fmt.Errorf("%w\n%s", failed, strings.Join(h.events, "\n"))
			}
			detached += h.detached
			rejoined += h.rejoined
		})
		if failed != nil {
			r.Fatal(failed)
		}
	})
	t.Logf("brokers were detached %d times and have rejoined %d times", detached, rejoined)
	if detached < 100 || rejoined < 100 {
		t.Errorf("that is too little to mean anything")
	}
}

// act is one thing that happens, and how much time passes then.
type act struct {
	What        string
	Broker      int32
	Gap         int // between the record before and this one
	Transaction int
	Daemon      int
	Time        time.Duration
}

func drawAct(r *rapid.T) act {
	return act{
		What: rapid.SampledFrom([]string{
			"write", "write", "write", "commit", "commit", "emit", "emit", "emit", "fail", "fail", "fail", "return", "return", "return",
			"break main", "break own", "crash", "replace", "wait", "wait", "wait",
		}).Draw(r, "what"),
		Broker:      rapid.Int32Range(1, brokers).Draw(r, "broker"),
		Gap:         rapid.SampledFrom([]int{0, 16}).Draw(r, "gap"),
		Transaction: rapid.IntRange(0, 1).Draw(r, "transaction"),
		Daemon:      rapid.IntRange(0, 1).Draw(r, "daemon"),
		Time: rapid.SampledFrom([]time.Duration{
			0, 10 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 12 * time.Second,
		}).Draw(r, "time"),
	}
}

// history is one run of the model.
type history struct {
	*world
	daemons            []*daemon
	had                map[int32]bool // brokers with a slot of their own, when last looked
	detached, rejoined int
}

func newHistory(seed uint64) *history {
	h := &history{world: newWorld(brokers), had: make(map[int32]bool)}
	for n := range uint64(2) {
		h.daemons = append(h.daemons, newDaemon(h.world, seed+n))
	}
	return h
}

// live lets everything happen, heals all faults, and judges.
func (h *history) live(acts []act) error {
	for _, a := range acts {
		if err := h.act(a); err != nil {
			return err
		}
	}
	return h.heal()
}

// act lets one thing happen, and then some time pass, in which everybody works.
func (h *history) act(a act) error {
	daemon := h.daemons[a.Daemon]
	fault := func() {}
	h.mu.Lock()
	switch a.What {
	case "write":
		h.write(a.Transaction, a.Broker, a.Gap)
	case "commit":
		h.commit(a.Transaction, a.Gap)
	case "emit":
		h.emit(a.Broker, a.Gap)
	case "fail":
		h.fail(a.Broker)
	case "return":
		delete(h.down, a.Broker)
	case "break main":
		fault = daemon.stopLeading
	case "break own":
		if own := h.slots[a.Broker]; own != nil && own.reader != 0 {
			h.faults++
			own.reader = 0
		}
	case "crash":
		fault = func() { h.crash(daemon) }
	case "replace": // the server has lost the reader, which does not know it
		h.faults++
		h.slots[mainSlot].reader = 0
	}
	h.mu.Unlock()
	fault()
	return h.run(a.Time)
}

// fail makes a broker unreachable. What it has not confirmed is sent again.
func (h *history) fail(broker int32) {
	h.down[broker] = true
	for _, d := range h.daemons {
		repeats := d.lanes[broker].disconnect()
		if own := d.own[broker]; own != nil {
			repeats = own.lane.disconnect() || repeats
		}
		if repeats {
			h.faults++
		}
	}
}

// crash replaces a daemon by a new one.
func (h *history) crash(d *daemon) {
	d.crash()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.daemons[slices.Index(h.daemons, d)] = newDaemon(h.world, uint64(h.pids))
}

// run lets time pass. Everybody does a little in each part of it.
func (h *history) run(d time.Duration) error {
	for part := range 8 {
		h.mu.Lock()
		for i := range h.daemons {
			h.workOf(h.daemons[(i+part)%len(h.daemons)])
		}
		h.look()
		mistakes := h.mistakes
		h.mu.Unlock()
		if len(mistakes) > 0 {
			return errors.New(strings.Join(mistakes, "\n"))
		}
		for _, d := range h.daemons {
			if h.lost(d) {
				d.stopLeading()
			}
		}
		_ = backoff.Sleep(context.Background(), d/8)
		synctest.Wait()
	}
	return nil
}

// lost tells whether a daemon leads and the server does not think so.
func (h *history) lost(d *daemon) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return d.main != nil && !d.main.alive(h.world)
}

// workOf is what a daemon does by itself.
func (h *history) workOf(d *daemon) {
	d.lead()
	d.step()
	d.step()
	if d.main != nil && d.main.alive(h.world) {
		h.report(mainSlot, d.main.tracker.Flushed())
	}
	for b := int32(1); b <= brokers; b++ {
		for range 2 {
			d.work(d.lanes[b], b)
			if own := d.own[b]; own != nil {
				own.step()
				d.work(&own.lane, b)
				if own.stream != nil && own.stream.alive(h.world) {
					h.report(b, own.stream.tracker.Flushed())
				}
			}
		}
	}
}

// look counts what has become of the slots.
func (h *history) look() {
	for b := int32(1); b <= brokers; b++ {
		has := h.slots[b] != nil
		switch {
		case has && !h.had[b]:
			h.detached++
		case !has && h.had[b]:
			h.rejoined++
		}
		h.had[b] = has
	}
}

// heal ends all faults, waits until everything has arrived, and judges.
func (h *history) heal() error {
	h.mu.Lock()
	clear(h.down)
	for i := range h.open {
		h.commit(i, 0)
	}
	h.mu.Unlock()
	for range 3000 {
		if err := h.run(time.Second); err != nil {
			return err
		}
		h.mu.Lock()
		settled := h.complete() && len(h.slots) == 1
		h.mu.Unlock()
		if settled {
			return h.judge()
		}
	}
	return fmt.Errorf("after an hour without faults: all arrived: %v; %d slots", h.complete(), len(h.slots))
}

// stop ends all daemons.
func (h *history) stop() {
	for _, d := range h.daemons {
		d.cancel()
		d.stopLeading()
	}
	_ = backoff.Sleep(context.Background(), 5*time.Minute) // what was asked of the server is done by now
	synctest.Wait()
}

// judge compares what came with what was committed.
func (h *history) judge() error {
	for b := int32(1); b <= brokers; b++ {
		var want []int
		for _, u := range h.wal {
			for _, m := range u.messages {
				if m.broker == b {
					want = append(want, m.number)
				}
			}
		}
		var first []int
		for _, n := range h.delivered[b] {
			if !slices.Contains(first, n) {
				first = append(first, n)
			}
		}
		if !slices.Equal(first, want) {
			return fmt.Errorf("broker %d: first deliveries %v, committed %v", b, first, want)
		}
		if h.faults == 0 && len(h.delivered[b]) != len(want) {
			return fmt.Errorf("broker %d: without a fault some came again: %v", b, h.delivered[b])
		}
	}
	return nil
}
