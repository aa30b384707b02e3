package integration

import (
	"encoding/binary"
	"testing"

	"github.com/jackc/pglogrepl"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A unit is what PostgreSQL confirms as a whole: a transaction, or a message outside of any.
type unit struct {
	transaction bool
	messages    []unitMessage
	commit      pglogrepl.LSN // where the commit record begins; of a transaction
	end         pglogrepl.LSN // the exact end, at which the next record begins
}

type unitMessage struct {
	lsn     pglogrepl.LSN
	prefix  string
	content []byte
}

// content returns that of the first message.
func (u unit) content() string {
	if len(u.messages) == 0 {
		return ""
	}
	return string(u.messages[0].content)
}

// readUnits puts the frames of pgoutput together to units, in order.
func readUnits(t *testing.T, frames [][]byte) []unit {
	t.Helper()
	var all []unit
	var open unit
	for _, frame := range frames {
		parsed, err := pglogrepl.Parse(frame)
		if err != nil {
			t.Fatalf("frame %x: %v", frame, err)
		}
		switch m := parsed.(type) {
		case *pglogrepl.BeginMessage:
			open = unit{transaction: true}
		case *pglogrepl.LogicalDecodingMessage:
			message := unitMessage{lsn: m.LSN, prefix: m.Prefix, content: m.Content}
			if m.Transactional {
				open.messages = append(open.messages, message)
			} else {
				all = append(all, unit{messages: []unitMessage{message}, end: m.LSN})
			}
		case *pglogrepl.CommitMessage:
			open.commit, open.end = m.CommitLSN, m.TransactionEndLSN
			all = append(all, open)
		}
	}
	return all
}

// units returns what was committed, in the order of commits, other prefixes included.
func (h *history) units() []unit {
	h.w.t.Helper()
	return readUnits(h.w.t, query[[]byte](h.w, `
		select data from pg_logical_slot_peek_binary_changes($1, null, null,
		  'proto_version', '1', 'publication_names', 'pgamqp', 'messages', 'true')`, h.slot))
}

// ends returns where the unit of each published message ends, by the message's body.
func (h *history) ends() map[string]pglogrepl.LSN {
	h.w.t.Helper()
	ends := make(map[string]pglogrepl.LSN)
	for _, u := range h.units() {
		for _, m := range u.messages {
			if m.prefix == "amqp" && m.content[1] == 'p' {
				ends[publishedBody(m.content)] = u.end
			}
		}
	}
	return ends
}

// publishedBody is what follows the fields of an envelope: each has a tag, a length of
// three bytes, and a value; four zeros are their end.
func publishedBody(content []byte) string {
	for content = content[6:]; ; {
		head := binary.BigEndian.Uint32(content)
		content = content[4:]
		if head == 0 {
			return string(content)
		}
		content = content[head&0xffffff:]
	}
}

// span is the WAL that was written and not confirmed when something broke: from is the
// slot's position, to the end of the WAL.
type span struct{ from, to pglogrepl.LSN }

// unconfirmed returns the span of now. The daemon must have left the slot.
func (w *world) unconfirmed() span {
	w.t.Helper()
	await(w.t, startLimit, "the slot is free", func() bool {
		return value[bool](w, `select not active from pg_replication_slots where slot_name = $1`, w.slot)
	})
	return span{
		from: w.lsn(`select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, w.slot),
		to:   w.lsn(`select pg_current_wal_insert_lsn()::text`),
	}
}

// lsn returns the position that a statement yields as text.
func (w *world) lsn(statement string, args ...any) pglogrepl.LSN {
	w.t.Helper()
	lsn, err := pglogrepl.ParseLSN(value[string](w, statement, args...))
	if err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
	return lsn
}

// checkRepeated fails the test for a message that came more often than it may: once, and
// once more for each span that it was in.
func checkRepeated(t *testing.T, got []amqp.Delivery, ends map[string]pglogrepl.LSN, spans []span) {
	t.Helper()
	came := make(map[string]int)
	for _, body := range bodies(got) {
		came[body]++
	}
	for body, n := range came {
		end, allowed := ends[body], 1
		for _, s := range spans {
			if s.from < end && end <= s.to {
				allowed++
			}
		}
		if n > allowed {
			t.Errorf("%s, whose unit ends at %s, came %d times and may %d times", body, end, n, allowed)
		}
	}
}
