package isolation_test

import (
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/replication"
)

// The world of the model: a WAL, the slots of a server, and brokers that remember what
// they were sent. All of it survives whatever happens to daemons.

// unit is a transaction, or a message outside of any.
type unit struct {
	transaction bool
	start, end  pglogrepl.LSN // of the commit record, or of the message's own
	messages    []message
}

// message is the number-th of all.
type message struct {
	number int
	broker int32
	at     decoder.Position
}

// slot is what the server keeps of one.
type slot struct {
	confirmed pglogrepl.LSN
	reader    int // the process that streams from it, 0 if none
}

// mainSlot is its name; the others are those of brokers.
const mainSlot int32 = 0

type world struct {
	mu        sync.Mutex // guards all, the daemons' streams included
	wal       []*unit
	open      []*unit // transactions that are not committed
	next      pglogrepl.LSN
	slots     map[int32]*slot
	pids      int
	count     int // of messages
	down      map[int32]bool
	delivered map[int32][]int // message numbers, in the order of their arrival
	faults    int             // after which messages may come again
	mistakes  []string
	began     time.Time
	events    []string
}

// note remembers what has happened, for a run that fails.
func (w *world) note(format string, args ...any) {
	w.events = append(w.events, fmt.Sprintf("%10s ", time.Since(w.began))+fmt.Sprintf(format, args...))
}

func newWorld(brokers int) *world {
	w := &world{
		began: time.Now(),
		next:  0x100, slots: map[int32]*slot{mainSlot: {confirmed: 0x100}},
		down: make(map[int32]bool), delivered: make(map[int32][]int), open: []*unit{{transaction: true}, {transaction: true}},
	}
	for b := range int32(brokers) {
		w.delivered[b+1] = nil
	}
	return w
}

// record takes room in the WAL and returns where it starts and ends. Records may be
// adjacent.
func (w *world) record(gap int) (start, end pglogrepl.LSN) {
	start = w.next + pglogrepl.LSN(gap)
	w.next = start + 8
	return start, w.next
}

// write adds a message to an open transaction.
func (w *world) write(transaction int, broker int32, gap int) {
	_, end := w.record(gap)
	u := w.open[transaction]
	w.count++
	u.messages = append(u.messages, message{number: w.count, broker: broker, at: decoder.Position{Transaction: true, LSN: end}})
}

// commit ends an open transaction, which may have no message.
func (w *world) commit(transaction, gap int) {
	u := w.open[transaction]
	w.open[transaction] = &unit{transaction: true}
	u.start, u.end = w.record(gap)
	for i := range u.messages {
		u.messages[i].at.Unit = u.start
	}
	w.wal = append(w.wal, u)
}

// emit writes a message outside of a transaction.
func (w *world) emit(broker int32, gap int) {
	start, end := w.record(gap)
	w.count++
	w.wal = append(w.wal, &unit{start: start, end: end, messages: []message{
		{number: w.count, broker: broker, at: decoder.Position{Unit: end, LSN: end}},
	}})
}

// report moves a slot as its reader says, and looks whether that has lost something.
func (w *world) report(name int32, flushed pglogrepl.LSN) {
	if s := w.slots[name]; flushed > s.confirmed {
		s.confirmed = flushed
		w.note("slot %d is confirmed up to %s", name, flushed)
		w.check("slot %d has moved to %s", name, flushed)
	}
}

// check finds messages that no slot keeps any more and that no broker has.
func (w *world) check(format string, args ...any) {
	for _, u := range w.wal {
		for _, m := range u.messages {
			kept := u.start >= w.slots[mainSlot].confirmed
			if own := w.slots[m.broker]; own != nil {
				kept = u.start >= own.confirmed
			}
			if !kept && !w.has(m) {
				w.mistakes = append(w.mistakes, fmt.Sprintf("message %d to broker %d is lost: %s", m.number, m.broker, fmt.Sprintf(format, args...)))
			}
		}
	}
}

func (w *world) has(m message) bool {
	for _, n := range w.delivered[m.broker] {
		if n == m.number {
			return true
		}
	}
	return false
}

// complete tells whether every message has arrived.
func (w *world) complete() bool {
	for _, u := range w.wal {
		for _, m := range u.messages {
			if !w.has(m) {
				return false
			}
		}
	}
	return true
}

// stream reads a slot, with a real Tracker.
type stream struct {
	name    int32
	pid     int
	tracker *replication.Tracker
	at      int // index of the next unit in the WAL
	within  int // next message of that unit
	unit    *replication.Unit
}

// openStream starts to read a slot from its confirmed position, or from further on.
func (w *world) openStream(name int32, pid int, from pglogrepl.LSN) *stream {
	s := w.slots[name]
	s.reader = pid
	st := &stream{name: name, pid: pid, tracker: replication.NewTracker(s.confirmed, nil)}
	for st.at < len(w.wal) && w.wal[st.at].start < max(from, s.confirmed) {
		st.at++
	}
	return st
}

// alive tells whether the server still has the stream.
func (st *stream) alive(w *world) bool {
	s := w.slots[st.name]
	return s != nil && s.reader == st.pid
}

// peek returns the next message, false if a unit's end or nothing comes next.
func (st *stream) peek(w *world) (message, bool) {
	if st.at < len(w.wal) && st.within < len(w.wal[st.at].messages) {
		return w.wal[st.at].messages[st.within], true
	}
	return message{}, false
}

// add enters the message that peek returned.
func (st *stream) add() func() {
	if st.unit == nil {
		st.begin()
	}
	st.within++
	return st.unit.Add()
}

func (st *stream) begin() { st.unit = st.tracker.Open(timeZero()) }

// pass goes over a unit's end, or enters the end of the WAL as a keepalive.
func (st *stream) pass(w *world) error {
	if st.at == len(w.wal) {
		st.tracker.Keepalive(w.next)
		return nil
	}
	if st.unit == nil {
		st.begin()
	}
	u := st.unit
	st.unit, st.within = nil, 0
	st.at++
	return u.Seal(w.wal[st.at-1].end)
}
