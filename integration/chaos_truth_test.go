package integration

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
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
	row  bool // made of a row
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
	var all []emission
	for _, u := range readUnits(h.w.t, h.frames("get")) {
		if u.end <= last {
			continue
		}
		last = u.end
		for _, m := range u.messages {
			switch {
			case m.prefix == "amqp" && m.content[1] == 'p':
				all = append(all, readEmission(h.w.t, m, u.end))
			case chaosTable(m.table) > 0:
				all = append(all, readRow(m, u.end))
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
	e.name, e.hash = told(content)
	for _, queue := range chaosQueues() {
		if key == queue && (exchange == "" || exchange == chaosFleeting) {
			e.to.queue = queue
		}
	}
	return e
}

// readRow reads a row of a table of the load, which becomes a message to that broker.
func readRow(m unitMessage, end pglogrepl.LSN) emission {
	e := emission{lsn: m.lsn, end: end, to: place{broker: chaosTable(m.table)}, row: true}
	e.name, e.hash = told([]byte(m.values[2]))
	if key := m.values[1]; slices.Contains(chaosQueues(), key) {
		e.to.queue = key
	}
	return e
}

// chaosTable returns which broker the rows of a table go to, 0 for a table that is none of the load's.
func chaosTable(name string) (broker int) {
	if n, _ := fmt.Sscanf(name, "rows_%d", &broker); n != 1 {
		return 0
	}
	return broker
}

// told returns the name of a message and the hash of what it tells. A message about a row, sent at first or again
// as a dead letter, tells what the row's column does.
func told(body []byte) (name string, hash uint64) {
	var r row
	if json.Unmarshal(body, &r) == nil {
		body = []byte(fmt.Sprint(r.After["content"]))
	}
	return nameOf(string(body)), hashOf(string(body))
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
	for _, body := range query[[]byte](c.world, `select body from amqp.dead_letter where kind = 'publish'`) {
		name, _ := told(body)
		names[name] = true
	}
	return names
}
