package publisher

import (
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"
)

// naiveEntry and naiveWindow are the window as one would write it without a
// thought for speed: a list of everything ever added, looked through each time.
type naiveEntry struct {
	entry           *entry
	taken, resolved bool
}

type naiveWindow struct {
	all                []*naiveEntry
	maxCount, maxBytes int
}

// held are the entries from the first one without a verdict on.
func (w *naiveWindow) held() []*naiveEntry {
	i := slices.IndexFunc(w.all, func(n *naiveEntry) bool { return !n.resolved })
	if i < 0 {
		return nil
	}
	return w.all[i:]
}

func (w *naiveWindow) which(want func(*naiveEntry) bool) []*naiveEntry {
	var out []*naiveEntry
	for _, n := range w.all {
		if want(n) {
			out = append(out, n)
		}
	}
	return out
}

func (w *naiveWindow) inFlight() []*naiveEntry {
	return w.which(func(n *naiveEntry) bool { return n.taken && !n.resolved })
}

func (w *naiveWindow) bytes() int {
	sum := 0
	for _, n := range w.which(func(n *naiveEntry) bool { return !n.resolved }) {
		sum += n.entry.size
	}
	return sum
}

// full follows the rule, on entries: those that have a verdict and wait behind one
// that has none take room too, but no bytes.
func (w *naiveWindow) full(size, held int) bool {
	return held > 0 && (held >= w.maxCount || w.bytes()+size > w.maxBytes)
}

func entriesOf(list []*naiveEntry) []*entry {
	var out []*entry
	for _, n := range list {
		out = append(out, n.entry)
	}
	return out
}

// windowPair drives a window and its model side by side.
type windowPair struct {
	real  window
	model naiveWindow
}

func (p *windowPair) check(r *rapid.T) {
	flying := p.model.inFlight()
	if !slices.Equal(p.real.inFlight(), entriesOf(flying)) || p.real.pending != len(flying) {
		r.Fatalf("in flight %d, pending %d, want %d", len(p.real.inFlight()), p.real.pending, len(flying))
	}
	if p.real.bytes != p.model.bytes() || p.real.bytes < 0 {
		r.Fatalf("%d bytes, want %d", p.real.bytes, p.model.bytes())
	}
	if (p.real.len() == 0) != (len(p.model.held()) == 0) {
		r.Fatalf("len %d, held %d", p.real.len(), len(p.model.held()))
	}
	for _, gone := range p.real.entries[:p.real.first] {
		if gone != nil {
			r.Fatal("an entry with a verdict is kept in memory")
		}
	}
}

func (p *windowPair) add(r *rapid.T) {
	size := rapid.IntRange(1, 60).Draw(r, "size")
	want := p.model.full(size, p.real.len())
	if got := p.real.full(size); got != want {
		r.Fatalf("full for %d bytes: %t", size, got)
	}
	if want {
		return
	}
	e := &entry{size: size}
	p.real.add(e)
	p.model.all = append(p.model.all, &naiveEntry{entry: e})
}

func (p *windowPair) take(r *rapid.T) {
	waiting := p.model.which(func(n *naiveEntry) bool { return !n.taken && !n.resolved })
	got := p.real.take()
	if len(waiting) == 0 {
		if got != nil {
			r.Fatal("took an entry, none waits")
		}
		return
	}
	if got != waiting[0].entry {
		r.Fatal("took another entry than the first that waits")
	}
	got.confirm, got.returned = &amqp.DeferredConfirmation{}, &amqp.Return{}
	waiting[0].taken = true
}

func (p *windowPair) resolve(r *rapid.T) {
	flying := p.model.inFlight()
	if len(flying) == 0 {
		r.Skip("nothing in flight")
	}
	n := flying[rapid.IntRange(0, len(flying)-1).Draw(r, "which")]
	n.resolved = true
	p.real.resolve(n.entry)
	p.real.resolve(n.entry) // a second verdict changes nothing
}

func (p *windowPair) rewind(r *rapid.T) {
	p.real.rewind()
	for _, n := range p.model.all {
		n.taken = n.taken && n.resolved
		if e := n.entry; !n.resolved && (e.confirm != nil || e.returned != nil) {
			r.Fatal("rewound with the marks of the old channel")
		}
	}
	// What was gone or had a verdict is dropped: the rest alone takes room.
	if want := len(p.model.which(func(n *naiveEntry) bool { return !n.resolved })); p.real.len() != want {
		r.Fatalf("len %d after rewind, want %d", p.real.len(), want)
	}
}

func (p *windowPair) clear(r *rapid.T) {
	dropped := entriesOf(p.model.which(func(n *naiveEntry) bool { return !n.resolved }))
	p.real.clear()
	p.model.all = nil
	for _, e := range dropped {
		if !e.forgotten {
			r.Fatal("an entry was dropped without being told")
		}
		p.real.resolve(e) // a late verdict
	}
	if p.real.len() != 0 || p.real.pending != 0 || p.real.bytes != 0 {
		r.Fatalf("len %d, pending %d, bytes %d after clear", p.real.len(), p.real.pending, p.real.bytes)
	}
}

func TestWindowAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		count, bytes := rapid.IntRange(1, 12).Draw(r, "count"), rapid.IntRange(1, 300).Draw(r, "bytes")
		p := &windowPair{
			real:  window{maxCount: count, maxBytes: bytes},
			model: naiveWindow{maxCount: count, maxBytes: bytes},
		}
		r.Repeat(map[string]func(*rapid.T){
			"": p.check, "add": p.add, "add more": p.add, "take": p.take, "take more": p.take,
			"resolve": p.resolve, "resolve more": p.resolve, "rewind": p.rewind, "clear": p.clear,
		})
	})
}

// The list is moved to the front of its array now and then; a long run goes
// through that many times.
func TestWindowKeepsOrderAndMemoryOverALongRun(t *testing.T) {
	const count = 600
	w := window{maxCount: count, maxBytes: 1 << 30}
	entries := make(map[*entry]int)
	next, expected, held := 0, 0, 0
	for range 50_000 {
		for !w.full(1) {
			e := &entry{size: 1}
			entries[e] = next
			next++
			w.add(e)
		}
		e := w.take()
		if entries[e] != expected {
			t.Fatalf("took %d, want %d", entries[e], expected)
		}
		expected++
		delete(entries, e)
		w.resolve(e)
		held = max(held, len(w.entries))
	}
	if held > 3*count {
		t.Errorf("an array of %d for a window of %d", held, count)
	}
}

func TestEmptyWindowTakesOneEntryOfAnySize(t *testing.T) {
	w := window{maxCount: 3, maxBytes: 100}
	if w.full(1000) {
		t.Fatal("a large message can never be sent")
	}
	w.add(&entry{size: 1000})
	if !w.full(1) {
		t.Error("more behind a message that is too large")
	}
	w.resolve(w.take())
	if w.full(1) || w.len() != 0 {
		t.Error("still full without it")
	}
}
