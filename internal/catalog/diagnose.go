package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/sql"
)

// Level says how grave a finding is.
type Level string

// The levels, from the least grave.
const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // works, and should be looked at
	LevelError   Level = "error"   // does not work
)

// Finding is what was found out about one thing.
type Finding struct {
	Level Level  `json:"level"`
	Area  string `json:"area"` // for example "slot" or "broker 1"
	What  string `json:"what"`
	Fix   string `json:"fix,omitempty"` // a command or what to do
}

// Diagnosis collects findings.
type Diagnosis struct {
	Findings []Finding
	// PreparedFor is how old a prepared transaction must be to be worth a word; 0 is an hour.
	PreparedFor time.Duration
	// Held is the WAL in bytes from which on an open transaction is; 0 is 1 GiB.
	Held int64
}

// Add adds one.
func (d *Diagnosis) Add(level Level, area, what, fix string) {
	d.Findings = append(d.Findings, Finding{level, area, what, fix})
}

// settle adds problems of one level, or what is right if there is none.
func (d *Diagnosis) settle(level Level, area string, found problems, right string) {
	for _, p := range found {
		d.Add(level, area, p.What, p.Fix)
	}
	if len(found) == 0 && right != "" {
		d.Add(LevelOK, area, right, "")
	}
}

// Diagnose looks at everything in the database that pgamqp builds on, installed or not, and goes on after what is
// wrong as far as that makes sense. The error is for what kept it from looking.
func Diagnose(ctx context.Context, conn *pgx.Conn, o PreflightOptions, d *Diagnosis) error {
	s, err := readServer(ctx, conn)
	if err != nil {
		return err
	}
	var found problems
	s.check(&found)
	checkNames(&found, o.Slot, o.Publication)
	d.settle(LevelError, "server", found, fmt.Sprintf("PostgreSQL %s with logical decoding; role %q may use replication slots", s.versionName, s.role))
	if s.inRecovery {
		return nil // what else there is to say is about the primary
	}
	found = nil
	installed, err := checkInstallation(ctx, conn, s, &found)
	if err != nil {
		return err
	}
	present := installed.Version > 0
	d.settle(LevelError, "installation", found, fmt.Sprintf("schema version %d; role %q may do what the daemon does", installed.Version, s.role))
	if o.Slot == "" {
		o.Slot = installed.Slot
	}
	if o.Publication == "" {
		o.Publication = installed.Publication
	}
	if present {
		warnings, err := Warnings(ctx, conn)
		if err != nil {
			return err
		}
		d.settle(LevelWarning, "installation", warnings, "")
	}
	if err := diagnosePublication(ctx, conn, o.Publication, installed, d); err != nil {
		return err
	}
	if err := diagnoseSlot(ctx, conn, s, o.Slot, installed, d); err != nil {
		return err
	}
	if err := diagnoseCapacity(ctx, conn, s, d); err != nil {
		return err
	}
	return diagnoseStream(ctx, conn, s, o.Slot, d)
}

// A table in the publication whose rows have no identity takes no UPDATE and no DELETE any more: its
// applications fail, not we. Each partition has an identity of its own, also one that was made later. If its changes come under
// the table's name while it has another identity than that, the old rows in them are wrong.
const identityQuery = `
select x.name, x.root, x.missing
  from pg_catalog.pg_publication_tables t
  join pg_catalog.pg_publication p on p.pubname = t.pubname
  join pg_catalog.pg_namespace n on n.nspname = t.schemaname
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename,
  lateral (
    select pg_catalog.format('%I.%I', ln.nspname, l.relname), pg_catalog.format('%I.%I', t.schemaname, t.tablename),
           l.relreplident = 'n' or l.relreplident = 'd' and not exists (
             select from pg_catalog.pg_index i where i.indrelid = l.oid and i.indisprimary and i.indimmediate),
           l.relreplident <> c.relreplident
      from pg_catalog.pg_class l join pg_catalog.pg_namespace ln on ln.oid = l.relnamespace
     where l.relkind = 'r' and (l.oid = c.oid or l.oid in (select leaf.relid from pg_catalog.pg_partition_tree(c.oid) leaf))
  ) x(name, root, missing, differs)
 where t.pubname = $1 and (p.pubupdate or p.pubdelete) and (x.missing or x.differs)
 order by 1`

func diagnoseIdentities(ctx context.Context, conn *pgx.Conn, name string, d *Diagnosis) error {
	rows, err := conn.Query(ctx, identityQuery, name)
	if err != nil {
		return err
	}
	var table, root string
	var missing bool
	_, err = pgx.ForEachRow(rows, []any{&table, &root, &missing}, func() error {
		if missing {
			d.Add(LevelError, "publication", fmt.Sprintf("UPDATE and DELETE fail on %s: it is published, and its rows have no replica identity", table),
				fmt.Sprintf("add a primary key, or: alter table %s replica identity full;", table))
		} else {
			d.Add(LevelWarning, "publication", fmt.Sprintf("the replica identity of %s is not that of its table %s: old rows in its messages are wrong", table, root),
				fmt.Sprintf("give both the same, for example: alter table %s replica identity full; alter table %s replica identity full;", root, table))
		}
		return nil
	})
	return err
}

// Routes to tables that are not there, or not published; patterns match what there is.
const unpublishedQuery = `
select r.route_id, pg_catalog.format('%I.%I', r.schema_name, r.table_name), c.oid is not null
  from amqp.route r
  left join pg_catalog.pg_namespace n on n.nspname = r.schema_name
  left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = r.table_name
 where r.schema_name is not null and pg_catalog.strpos(r.schema_name || r.table_name, '*') = 0
   and not exists (select from pg_catalog.pg_publication_tables t
                    where t.pubname = $1 and t.schemaname = r.schema_name and t.tablename = r.table_name)
 order by 1`

func diagnosePublication(ctx context.Context, conn *pgx.Conn, name string, installed Installation, d *Diagnosis) error {
	var found problems
	if err := checkPublication(ctx, conn, name, installed, &found); err != nil {
		return err
	}
	d.settle(LevelError, "publication", found, fmt.Sprintf("publication %q is there", name))
	if err := diagnoseIdentities(ctx, conn, name, d); err != nil {
		return fmt.Errorf("read the tables of publication %q: %w", name, err)
	}
	if installed.Version != sql.Version {
		return nil // there may be no routes yet
	}
	rows, err := conn.Query(ctx, unpublishedQuery, name)
	if err != nil {
		return fmt.Errorf("read amqp.route: %w", err)
	}
	var route int32
	var table string
	var present bool
	_, err = pgx.ForEachRow(rows, []any{&route, &table, &present}, func() error {
		if present {
			d.Add(LevelWarning, "publication", fmt.Sprintf("route %d is for %s, which is not published: none of its changes is sent", route, table),
				fmt.Sprintf("alter publication %s add table %s;", quote(name), table))
		} else {
			d.Add(LevelWarning, "publication", fmt.Sprintf("route %d is for %s, which does not exist", route, table), fmt.Sprintf("select amqp.unroute(%d);", route))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read amqp.route: %w", err)
	}
	return nil
}

func diagnoseSlot(ctx context.Context, conn *pgx.Conn, s server, slot string, installed Installation, d *Diagnosis) error {
	var found problems
	if err := checkSlots(ctx, conn, s, slot, installed, &found); err != nil {
		return err
	}
	status, err := ReadSlot(ctx, conn, slot)
	if errors.Is(err, ErrNoSlot) {
		d.settle(LevelError, "slot", found, "")
		return nil
	}
	if err != nil {
		return err
	}
	d.settle(LevelError, "slot", found, fmt.Sprintf("slot %q is good; WAL that is not confirmed: %d bytes, kept for it: %d bytes", slot, status.ConfirmedLag, status.Retained))
	if len(found) > 0 {
		return nil
	}
	if !status.Active {
		d.Add(LevelWarning, "slot", fmt.Sprintf("nobody reads slot %q, and the server keeps all WAL from %s on", slot, status.RestartLSN), `start the daemon: "pgamqp run"`)
	}
	if status.WALStatus == "unreserved" || status.WALStatus == "extended" {
		level := LevelWarning
		if status.WALStatus == "unreserved" {
			level = LevelError
		}
		d.Add(level, "slot", fmt.Sprintf("slot %q keeps more WAL than max_wal_size allows (wal_status %s)", slot, status.WALStatus),
			`see "pgamqp status" for what it waits for; a larger max_slot_wal_keep_size keeps it from getting lost`)
	}
	oldest, end, err := oldestTransaction(ctx, conn)
	if err != nil {
		return err
	}
	if oldest != "" && status.Retained > cmp.Or(d.Held, 1<<30) && status.ConfirmedLag < status.Retained/2 {
		d.Add(LevelWarning, "slot", fmt.Sprintf("%d bytes of WAL are kept for a transaction that is open: %s", status.Retained, oldest), "wait for its end, or end it: "+end)
	}
	return nil
}

// diagnoseCapacity looks whether each broker could get a slot and a connection of its own when it is detached.
func diagnoseCapacity(ctx context.Context, conn *pgx.Conn, s server, d *Diagnosis) error {
	var senders, used, prepared int
	var end string
	err := conn.QueryRow(ctx, `
		select pg_catalog.current_setting('max_wal_senders')::int, (select pg_catalog.count(*) from pg_catalog.pg_stat_replication)::int,
		       p.n::int, coalesce(p.ends, '')
		  from (select pg_catalog.count(*) as n,
		               (pg_catalog.array_agg(pg_catalog.format('commit prepared %L; or rollback prepared %L; in database %s', gid, gid, database) order by prepared))[1] as ends
		          from pg_catalog.pg_prepared_xacts where prepared < pg_catalog.now() - $1::interval) p`, cmp.Or(d.PreparedFor, time.Hour)).
		Scan(&senders, &used, &prepared, &end)
	if err != nil {
		return fmt.Errorf("read pg_stat_replication: %w", err)
	}
	var found problems
	if s.usedSlots >= s.maxSlots {
		found.add(fmt.Sprintf("all %d replication slots are in use: a broker that is down cannot be detached, and holds up the others", s.maxSlots),
			fmt.Sprintf("alter system set max_replication_slots = %d; and restart PostgreSQL", s.maxSlots+10))
	}
	if used >= senders {
		found.add(fmt.Sprintf("all %d connections of max_wal_senders are in use", senders),
			fmt.Sprintf("alter system set max_wal_senders = %d; and restart PostgreSQL", senders+10))
	}
	if prepared > 0 {
		found.add(fmt.Sprintf("%d prepared transactions are older than an hour: WAL is kept since they began", prepared), end+"; pg_prepared_xacts has all")
	}
	d.settle(LevelWarning, "server", found, fmt.Sprintf("%d of %d replication slots and %d of %d WAL senders are in use", s.usedSlots, s.maxSlots, used, senders))
	return nil
}
