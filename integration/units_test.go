package integration

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// unitMessage is a message, or the new values of a row that was inserted or updated.
type unitMessage struct {
	lsn     pglogrepl.LSN
	prefix  string
	content []byte

	table  string // of a row
	values []string
}

// frame is one of pgoutput, with the position that PostgreSQL gives it.
type frame struct {
	lsn  pglogrepl.LSN
	data []byte
}

// content returns that of the first message.
func (u unit) content() string {
	if len(u.messages) == 0 {
		return ""
	}
	return string(u.messages[0].content)
}

// readUnits puts the frames of pgoutput together to units, in order.
func readUnits(t *testing.T, frames []frame) []unit {
	t.Helper()
	var all []unit
	var open unit
	tables := make(map[uint32]string)
	row := func(f frame, table uint32, values *pglogrepl.TupleData) {
		m := unitMessage{lsn: f.lsn, table: tables[table]}
		for _, v := range values.Columns {
			m.values = append(m.values, string(v.Data))
		}
		open.messages = append(open.messages, m)
	}
	for _, f := range frames {
		parsed, err := pglogrepl.Parse(f.data)
		if err != nil {
			t.Fatalf("frame %x: %v", f.data, err)
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
		case *pglogrepl.RelationMessage:
			tables[m.RelationID] = m.RelationName
		case *pglogrepl.InsertMessage:
			row(f, m.RelationID, m.Tuple)
		case *pglogrepl.UpdateMessage:
			row(f, m.RelationID, m.NewTuple)
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
	return readUnits(h.w.t, h.frames("peek"))
}

// frames reads the slot: how is get, or peek, which reads the same again the next time.
func (h *history) frames(how string) []frame {
	h.w.t.Helper()
	var all []frame
	for _, f := range query[[]string](h.w, `
		select array[lsn::text, encode(data, 'hex')] from pg_logical_slot_`+how+`_binary_changes($1, null, null,
		  'proto_version', '1', 'publication_names', 'pgamqp', 'messages', 'true')`, h.slot) {
		lsn, err := pglogrepl.ParseLSN(f[0])
		data, failed := hex.DecodeString(f[1])
		if err = errors.Join(err, failed); err != nil {
			h.w.t.Fatal(err)
		}
		all = append(all, frame{lsn, data})
	}
	return all
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
