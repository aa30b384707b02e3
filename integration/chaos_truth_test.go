package integration

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// place is a queue of a broker.
type place struct {
	broker int
	queue  string // "" for what no queue takes
}

// emission is a message as it stands in the WAL. A redelivery is another emission of the same
// message, which has the same name.
type emission struct {
	name string
	hash uint64 // of the body
	lsn  pglogrepl.LSN
	end  pglogrepl.LSN // of its unit
	to   place
}

// nameOf returns the name that a body begins with.
func nameOf(body string) string {
	name, _, _ := strings.Cut(body, " ")
	return name
}

func hashOf(body string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(body)) // never fails
	return h.Sum64()
}

// emissions returns what was committed since it was asked last, in the order of commits. The slot
// may have forgotten what it was told, hence last.
func (h *history) emissions(last pglogrepl.LSN) ([]emission, pglogrepl.LSN) {
	h.w.t.Helper()
	units := readUnits(h.w.t, query[[]byte](h.w, `
		select data from pg_logical_slot_get_binary_changes($1, null, null,
		  'proto_version', '1', 'publication_names', 'pgamqp', 'messages', 'true')`, h.slot))
	var all []emission
	for _, u := range units {
		if u.end <= last {
			continue
		}
		last = u.end
		for _, m := range u.messages {
			if m.prefix == "amqp" && m.content[1] == 'p' {
				all = append(all, readEmission(h.w.t, m, u.end))
			}
		}
	}
	return all, last
}

// readEmission reads an envelope: version, kind, broker, fields of tag, length and value, zeros, body.
func readEmission(t *testing.T, m unitMessage, end pglogrepl.LSN) emission {
	t.Helper()
	e := emission{lsn: m.lsn, end: end, to: place{broker: int(binary.BigEndian.Uint32(m.content[2:]))}}
	var exchange, key string
	content := m.content[6:]
	for {
		head := binary.BigEndian.Uint32(content)
		content = content[4:]
		if head == 0 {
			break
		}
		value := content[:head&0xffffff]
		content = content[len(value):]
		switch head >> 24 {
		case 'x':
			exchange = string(value)
		case 'k':
			key = string(value)
		}
	}
	body := string(content)
	e.name, e.hash = nameOf(body), hashOf(body)
	for _, queue := range chaosQueues() {
		if key == queue && (exchange == "" || exchange == chaosFleeting) {
			e.to.queue = queue
		}
	}
	return e
}

// recordDeadLetters makes the database remember every dead letter there ever was.
func (c *chaos) recordDeadLetters() {
	c.script(
		`create table buried (n bigint generated always as identity primary key, lsn pg_lsn not null)`,
		`create function bury() returns trigger language plpgsql as $$
		   begin insert into public.buried (lsn) values (new.lsn); return null; end $$`,
		`create trigger bury after insert or update on amqp.dead_letter for each row execute function bury()`,
	)
}

// buried returns when each emission was stored as a dead letter for the first time, and keeps only the
// last, which says how many there were.
func (c *chaos) buried() map[pglogrepl.LSN]int64 {
	c.t.Helper()
	type row struct {
		LSN string
		N   int64
	}
	all := make(map[pglogrepl.LSN]int64)
	err := c.withSession(withDeadline(c.t, sqlLimit), func(conn *pgx.Conn) error {
		ctx := withDeadline(c.t, sqlLimit)
		rows, err := conn.Query(ctx, `select lsn::text as lsn, min(n) as n from buried group by lsn`)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[row])
		for _, r := range found {
			lsn, failed := pglogrepl.ParseLSN(r.LSN)
			err, all[lsn] = errors.Join(err, failed), r.N
		}
		if err == nil {
			_, err = conn.Exec(ctx, `delete from buried where n < (select max(n) from buried)`)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// letterNames returns which messages are dead letters now.
func (c *chaos) letterNames() map[string]bool {
	c.t.Helper()
	names := make(map[string]bool)
	for _, start := range query[string](c.world, `select convert_from(substr(body, 1, 60), 'UTF8') from amqp.dead_letter where kind = 'publish'`) {
		names[nameOf(start)] = true
	}
	return names
}
