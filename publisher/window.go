package publisher

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

// entry is one message on its way to a broker, until its verdict. There may be a window
// full of them, so it does not hold the envelope, which the few that become dead letters
// are read for once more.
type entry struct {
	message decoder.Message
	request request
	done    func()
	size    int // bytes counted against the window
	addedAt time.Time

	// confirm is set while the entry is published on the current channel and its
	// verdict is not known.
	confirm  *amqp.DeferredConfirmation
	sentAt   time.Time
	returned *amqp.Return

	failures  int       // connections it has ended while it was alone in flight
	nackedAt  time.Time // of the first negative confirm
	heldAt    time.Time // since when it is held because the broker will not take it
	heldFor   verdict   // why; of the last attempt
	alone     bool      // to be sent with nothing else in flight
	claimed   bool      // has its verdict, and done is being called
	resolved  bool      // has its verdict; kept until all before it have theirs
	forgotten bool      // given up by clear; its verdict means nothing
}

// entryOverhead is what an entry costs in memory beside its content: the structs
// here and the library's.
const entryOverhead = 1024

// window holds the messages of a lane from their acceptance to their verdict, in
// order: first those taken for publishing, then the others. It is not safe for
// concurrent use, does no I/O and knows no clock.
//
// Invariants:
//   - entries leave only with a verdict, or all together by clear;
//   - after rewind the unresolved entries are taken again in the order in which
//     they were added;
//   - count and bytes are within their bounds, but a window that is empty accepts
//     one entry of any size.
type window struct {
	maxCount, maxBytes int

	entries []*entry // of which entries[:first] are gone
	first   int
	next    int // the first one not taken
	bytes   int // of the unresolved ones
	pending int // taken, not resolved
}

// full tells whether there is no room for an entry of the given size.
func (w *window) full(size int) bool {
	n := len(w.entries) - w.first
	return n > 0 && (n >= w.maxCount || w.bytes+size > w.maxBytes)
}

// roomy tells whether an eighth of a full window is free, or what fills it is bytes: then
// a single entry may be much.
func (w *window) roomy() bool { return w.len() <= w.maxCount-w.maxCount/8 }

// add appends an entry. The caller has asked full before.
func (w *window) add(e *entry) {
	w.entries = append(w.entries, e)
	w.bytes += e.size
}

// take returns the next entry to be published, nil if there is none, and counts
// it as in flight.
func (w *window) take() *entry {
	if !w.waiting() {
		return nil
	}
	e := w.entries[w.next]
	w.next++
	w.pending++
	return e
}

// waiting tells whether there is an entry to be published.
func (w *window) waiting() bool { return w.next < len(w.entries) }

// resolve removes an entry that was taken: its verdict is known.
func (w *window) resolve(e *entry) {
	if e.resolved || e.forgotten {
		return
	}
	e.resolved = true
	w.bytes -= e.size
	w.pending--
	for w.first < w.next && w.entries[w.first].resolved {
		w.entries[w.first] = nil
		w.first++
	}
	if w.first > 256 && w.first > len(w.entries)/2 {
		n := copy(w.entries, w.entries[w.first:])
		clear(w.entries[n:])
		w.entries = w.entries[:n]
		w.next -= w.first
		w.first = 0
	}
}

// rewind makes all unresolved entries wait for publishing again, in order.
func (w *window) rewind() {
	kept := w.entries[w.first:w.first]
	for i := w.first; i < len(w.entries); i++ {
		if e := w.entries[i]; !e.resolved {
			e.confirm, e.returned = nil, nil
			kept = append(kept, e)
		}
	}
	clear(w.entries[w.first+len(kept):])
	w.entries = w.entries[:w.first+len(kept)]
	w.next, w.pending = w.first, 0
}

// unclaimed returns the entries that have no verdict, in order.
func (w *window) unclaimed() []*entry {
	var out []*entry
	for _, e := range w.entries[w.first:] {
		if !e.claimed {
			out = append(out, e)
		}
	}
	return out
}

// inFlight returns the entries that were taken and have no verdict, in order.
func (w *window) inFlight() []*entry {
	var out []*entry
	for _, e := range w.entries[w.first:w.next] {
		if !e.resolved {
			out = append(out, e)
		}
	}
	return out
}

// clear forgets everything.
func (w *window) clear() {
	for _, e := range w.entries[w.first:] {
		e.forgotten = true
	}
	clear(w.entries)
	*w = window{maxCount: w.maxCount, maxBytes: w.maxBytes, entries: w.entries[:0]}
}

// front returns the oldest entry without a verdict, nil if there is none.
func (w *window) front() *entry {
	if w.first == len(w.entries) {
		return nil
	}
	return w.entries[w.first]
}

// len returns the number of entries without a verdict, or waiting behind one.
func (w *window) len() int { return len(w.entries) - w.first }
