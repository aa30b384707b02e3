package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// history is a random life of a slot: units that touch each other, confirmed in
// any order, crashes between any two frames, and a server that sometimes forgets
// what was reported, as PostgreSQL does.
type history struct {
	t    *testing.T
	rand *rand.Rand
	w    *world
	run  *running
	log  *fakewal.Log
	sink *fakeSink
	st   *fakewal.Stream

	inFlight []taken // arrived in this life of the stream, not confirmed
	reported pglogrepl.LSN
	first    []pglogrepl.LSN // messages by their first delivery
	seen     map[pglogrepl.LSN]bool

	mu   sync.Mutex // guards all below
	safe map[pglogrepl.LSN]time.Time
}

// confirm calls done, and notes when.
func (h *history) confirm(m taken) {
	h.mu.Lock()
	if _, ok := h.safe[m.LSN]; !ok {
		h.safe[m.LSN] = time.Now()
	}
	h.mu.Unlock()
	m.done()
}

// emit writes a unit, or something that a slot does not send.
func (h *history) emit() {
	switch h.rand.IntN(6) {
	case 0:
		h.log.Pad(h.rand.IntN(200))
	case 1:
		h.send(h.log.Begin().Commit())
	case 2, 3:
		h.send(h.log.Emit("amqp", make([]byte, h.rand.IntN(20))))
	default:
		tx := h.log.Begin()
		for range 1 + h.rand.IntN(4) {
			tx.Emit("amqp", make([]byte, h.rand.IntN(20)))
			if h.rand.IntN(3) == 0 { // arrives before the transaction
				h.send(h.log.Emit("amqp", nil))
			}
		}
		h.send(tx.Commit())
	}
}

// send sends units whole, or not at all if the stream breaks.
func (h *history) send(units ...fakewal.Unit) { send(h.st, units...) }

// arrive takes what has reached the sink, and waits a moment for something to do so.
func (h *history) arrive() {
	wait := time.After(2 * time.Millisecond)
	for {
		var m taken
		select {
		case m = <-h.sink.arrived:
		case <-wait:
			return
		}
		if !h.seen[m.LSN] {
			h.seen[m.LSN] = true
			h.first = append(h.first, m.LSN)
		}
		if m.LSN <= h.reported && !h.insideUnreported(m.Message) {
			h.t.Errorf("%s came again, behind a report of %s", m.LSN, h.reported)
		}
		h.inFlight = append(h.inFlight, m)
	}
}

// insideUnreported tells whether a message belongs to a transaction that ends
// behind what was reported, although the message stands before it.
func (h *history) insideUnreported(m decoder.Message) bool {
	for _, u := range h.log.From(h.reported) {
		if slices.Contains(u.Messages, m.LSN) {
			return true
		}
	}
	return false
}

// live is one stream from its start to its end.
func (h *history) live(last bool) {
	h.st = h.w.stream()
	h.inFlight = nil
	h.w.mu.Lock()
	from, err := pglogrepl.ParseLSN(h.w.slot.confirmed)
	h.w.mu.Unlock()
	if err != nil {
		h.t.Fatal(err)
	}
	h.send(h.log.From(from)...)
	for range 1 + h.rand.IntN(12) {
		switch h.rand.IntN(4) {
		case 0, 1:
			h.emit()
		case 2:
			h.st.Keepalive(h.log.End(), h.rand.IntN(2) == 0)
		case 3:
			h.arrive()
			for range h.rand.IntN(len(h.inFlight) + 1) {
				i := h.rand.IntN(len(h.inFlight))
				h.confirm(h.inFlight[i])
				h.inFlight = slices.Delete(h.inFlight, i, i+1)
			}
		}
	}
	if last {
		h.finish()
		return
	}
	if h.rand.IntN(3) > 0 { // enough time for a report
		h.st.Keepalive(h.log.End(), true)
		fakewal.AwaitMatch(h.t, h.w.Server, func(s *fakewal.Status) bool { return s.Stream == h.st })
	}
	h.crash()
}

// crash breaks the stream, in the middle of a transaction perhaps.
func (h *history) crash() {
	switch h.rand.IntN(3) {
	case 0:
		tx := h.log.Begin()
		tx.Emit("amqp", []byte("cut off"))
		u := tx.Commit()
		h.st.Send(u.Frames[:1+h.rand.IntN(2)]...)
		h.st.Conn.Drop()
	case 1:
		h.st.Conn.Drop()
	case 2:
		h.st.Fail(&fakewal.Error{Code: "53200", Message: "out of memory"})
	}
	fakewal.AwaitMatch(h.t, h.w.Server, func(e *fakewal.Closed) bool { return e.Conn == h.st.Conn })
	h.judge()
	if h.rand.IntN(2) == 0 { // else it forgets
		h.w.confirm(h.reported)
	}
	h.arrive() // of the stream that broke
}

// judge checks each report of the stream: what a server would not send again must
// have been safe by then.
func (h *history) judge() {
	for _, s := range h.st.Statuses() {
		again := map[pglogrepl.LSN]bool{}
		for _, u := range h.log.From(s.Flush) {
			for _, m := range u.Messages {
				again[m] = true
			}
		}
		h.mu.Lock()
		for _, u := range h.log.From(0) {
			for _, m := range u.Messages {
				at, ok := h.safe[m]
				if !again[m] && (!ok || at.Truncate(time.Microsecond).After(s.Time)) {
					h.t.Errorf("reported %s at %s, but %s was not safe (%s)", s.Flush, s.Time, m, at)
				}
			}
		}
		h.mu.Unlock()
		if s.Flush > h.log.End() || s.Flush > s.Write || s.Flush < start {
			h.t.Errorf("reported %v, the log ends at %s", s, h.log.End())
		}
		h.reported = max(h.reported, s.Flush)
	}
}

// finish confirms everything and compares what was delivered with the log.
func (h *history) finish() {
	var want []pglogrepl.LSN
	for _, u := range h.log.From(0) {
		want = append(want, u.Messages...)
	}
	h.st.Keepalive(h.log.End(), true)
	h.run.until("everything reported", func() bool {
		h.arrive()
		for _, m := range h.inFlight {
			h.confirm(m)
		}
		h.inFlight = nil
		all := h.st.Statuses()
		return len(all) > 0 && all[len(all)-1].Flush >= h.log.End()
	})
	h.judge()
	if !slices.Equal(h.first, want) {
		h.t.Errorf("first deliveries %v\nwant             %v", h.first, want)
	}
}

func TestNothingIsLostInRandomHistories(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := newSink()
			h := &history{
				t: t, w: w, sink: sink, log: fakewal.NewLog(start), rand: rand.New(rand.NewPCG(seed, 7)),
				reported: start, seen: map[pglogrepl.LSN]bool{}, safe: map[pglogrepl.LSN]time.Time{},
			}
			h.run = w.run(w.config(), sink)
			for lives := 4; lives > 0; lives-- {
				h.live(lives == 1)
			}
		})
	}
}
