package integration

import (
	"bytes"
	"encoding/binary"
)

// history knows what was committed since it was made, and in which order: it asks
// PostgreSQL, by a slot of its own that nothing is ever confirmed to. So it is right also
// about a COMMIT whose answer was lost.
type history struct {
	w    *world
	slot string
}

// history begins to record. A test makes it before anything is published.
func (w *world) history() *history {
	w.t.Helper()
	h := &history{w: w, slot: w.slot + "_history"}
	w.exec(`select pg_create_logical_replication_slot($1, 'pgoutput')`, h.slot)
	return h
}

// compare waits until all that was committed is delivered to a queue, and compares it with what
// was committed. Only then, because history sees what is on disk, and a message outside of a
// transaction may be delivered and not be there yet.
func (h *history) compare(broker int, queue string) comparison {
	h.w.t.Helper()
	got := h.w.received(broker, queue)
	return compare(h.bodies(broker), got)
}

// bodies returns the bodies of the messages to a broker, autonomous ones at the place at
// which they were written.
func (h *history) bodies(broker int) []string {
	h.w.t.Helper()
	var all []string
	for _, f := range h.frames("peek") {
		frame := f.data
		if frame[0] != 'M' {
			continue
		}
		prefix, rest, _ := bytes.Cut(frame[10:], []byte{0}) // behind type, flags and LSN
		content := rest[4:]                                 // behind its length
		if string(prefix) != "amqp" || content[1] != 'p' || int(binary.BigEndian.Uint32(content[2:])) != broker {
			continue
		}
		all = append(all, publishedBody(content))
	}
	return all
}
