package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// PreflightOptions names what the daemon is going to use. Empty means: as installed.
type PreflightOptions struct{ Slot, Publication string }

// ErrStandby means that the server is in recovery: nothing can be delivered from it, but it
// may be promoted any moment.
var ErrStandby = errors.New("the server is a standby (it is in recovery); waiting for its promotion; " +
	"give the primary's address, or all hosts of the cluster, as in postgres://user@a,b/database?target_session_attrs=read-write")

// Preflight finds all that would keep the daemon from running, before it starts. The
// error is a [ProblemsError] unless the server could not be asked, or is a standby.
func Preflight(ctx context.Context, conn *pgx.Conn, o PreflightOptions) error {
	var found problems
	s, err := readServer(ctx, conn)
	if err != nil {
		return err
	}
	if s.inRecovery {
		return ErrStandby
	}
	s.check(&found)
	checkNames(&found, o.Slot, o.Publication)

	installed, err := checkInstallation(ctx, conn, s, &found)
	if err != nil {
		return err
	}
	slot, publication := o.Slot, o.Publication
	if slot == "" {
		slot = installed.Slot
	}
	if publication == "" {
		publication = installed.Publication
	}
	if err := checkPublication(ctx, conn, publication, installed, &found); err != nil {
		return err
	}
	if err := checkSlots(ctx, conn, s, slot, installed, &found); err != nil {
		return err
	}
	return found.err("run")
}

// checkInstallation judges the version and whether our role may do what the daemon does.
func checkInstallation(ctx context.Context, conn *pgx.Conn, s server, found *problems) (Installation, error) {
	unknown := Installation{Slot: sql.DefaultName, Publication: sql.DefaultName}
	access, err := readAccess(ctx, conn)
	if err != nil {
		return unknown, err
	}
	if !access.present {
		found.add(fmt.Sprintf("schema amqp is not installed in database %q", s.database), `run "pgamqp install"`)
		return unknown, nil
	}
	if !access.daemon {
		found.add(fmt.Sprintf("role %q may not read amqp.broker, write amqp.dead_letter or call amqp.heartbeat", s.role),
			fmt.Sprintf("grant pgamqp_daemon to %s;", quote(s.role)))
	}
	if !access.version {
		return unknown, nil // reported with the other privileges
	}
	installed, err := ReadInstallation(ctx, conn)
	switch {
	case errors.Is(err, ErrNotInstalled):
		found.add(fmt.Sprintf("schema amqp is not installed in database %q", s.database), `run "pgamqp install"`)
		return unknown, nil
	case err != nil:
		return unknown, err
	case installed.Version < sql.Version:
		found.add(fmt.Sprintf("schema amqp has version %d, this program needs %d", installed.Version, sql.Version),
			`run "pgamqp install" of this program; it upgrades in place`)
	case installed.Version > sql.Version:
		found.add(fmt.Sprintf("schema amqp has version %d, this program knows versions up to %d", installed.Version, sql.Version),
			"use a pgamqp that is at least as new as the one that installed it")
	}
	return installed, nil
}

// access is what our role may do in schema amqp.
type access struct{ present, version, daemon bool }

// The functions that ask for privileges fail when an object is missing, so they get oids,
// which may be NULL; looking up an oid needs no privilege.
const accessQuery = `
with o as (
  select n.oid as schema,
         (select c.oid from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'installation') as installation,
         (select c.oid from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'broker') as broker,
         (select c.oid from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'dead_letter') as dead_letter,
         (select p.oid from pg_catalog.pg_proc p where p.pronamespace = n.oid and p.proname = 'heartbeat') as heartbeat
    from (select max(n.oid) as oid from pg_catalog.pg_namespace n where n.nspname = 'amqp') n)
select o.installation is not null and o.broker is not null and o.dead_letter is not null and o.heartbeat is not null,
       coalesce(pg_catalog.has_schema_privilege(o.schema, 'usage')
                and pg_catalog.has_table_privilege(o.installation, 'select'), false),
       coalesce(pg_catalog.has_schema_privilege(o.schema, 'usage')
                and pg_catalog.has_table_privilege(o.installation, 'select')
                and pg_catalog.has_table_privilege(o.broker, 'select')
                and pg_catalog.has_table_privilege(o.dead_letter, 'select')
                and pg_catalog.has_table_privilege(o.dead_letter, 'insert')
                and pg_catalog.has_table_privilege(o.dead_letter, 'update')
                and pg_catalog.has_function_privilege(o.heartbeat, 'execute'), false)
  from o`

func readAccess(ctx context.Context, conn *pgx.Conn) (access, error) {
	var a access
	if err := conn.QueryRow(ctx, accessQuery).Scan(&a.present, &a.version, &a.daemon); err != nil {
		return a, fmt.Errorf("look for schema amqp: %w", err)
	}
	return a, nil
}

func checkPublication(ctx context.Context, conn *pgx.Conn, name string, installed Installation, found *problems) error {
	present, err := HasPublication(ctx, conn, name)
	if err != nil {
		return err
	}
	if !present {
		// Up to PostgreSQL 17 the slot is stuck at the first row change that was written
		// without the publication, and creating it later does not help.
		kind := Setup
		switch {
		case installed.Version > 0 && installed.Publication == name:
			kind = PublicationMissing
		case installed.Version > 0: // a new installation would keep the name, too
			found.add(fmt.Sprintf("publication %q does not exist; pgamqp is installed with publication %q", name, installed.Publication),
				"give --publication "+installed.Publication)
			return nil
		}
		found.addAs(kind, fmt.Sprintf("publication %q does not exist", name),
			`run "pgamqp install"; if rows were changed while it was missing, the slot may be stuck at them and must be dropped with what is in it`)
	}
	return nil
}

// HasPublication tells whether there is a publication of this name.
func HasPublication(ctx context.Context, conn *pgx.Conn, name string) (bool, error) {
	var present bool
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_publication where pubname = $1)`, name).Scan(&present)
	if err != nil {
		return false, fmt.Errorf("read pg_publication: %w", err)
	}
	return present, nil
}

// checkSlots judges the slot and those of detached brokers.
func checkSlots(ctx context.Context, conn *pgx.Conn, s server, slot string, installed Installation, found *problems) error {
	status, err := ReadSlot(ctx, conn, slot)
	switch {
	case errors.Is(err, ErrNoSlot):
		if installed.Version == 0 {
			found.add(fmt.Sprintf("slot %q does not exist", slot), `run "pgamqp install"`)
			break
		}
		if installed.Slot != slot { // a new installation would keep the name, too
			found.add(fmt.Sprintf("slot %q does not exist; pgamqp is installed with slot %q", slot, installed.Slot), "give --slot "+installed.Slot)
			break
		}
		found.addAs(SlotGone, fmt.Sprintf("slot %q does not exist, and did when pgamqp was installed; the WAL ends at %s on timeline %d",
			slot, s.walEnd, s.timeline),
			`what was published until now and is not confirmed cannot be delivered: note the position and where the daemon's log ends, then run "pgamqp install"`)
	case err != nil:
		return err
	default:
		another := "give the name of another slot with --slot"
		if installed.Version > 0 && installed.Slot != slot {
			another = fmt.Sprintf("give --slot %s, with which pgamqp is installed", installed.Slot)
		}
		status.checkFor(found, s.database, another)
	}
	lanes, err := laneSlots(ctx, conn, slot)
	if err != nil {
		return err
	}
	for _, lane := range lanes {
		status, err := ReadSlot(ctx, conn, lane)
		if errors.Is(err, ErrNoSlot) {
			continue // dropped by a daemon in the meantime: the broker is back
		}
		if err != nil {
			return err
		}
		if status.Lost() {
			status.check(found, s.database)
		}
	}
	return nil
}
