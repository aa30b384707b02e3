package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// UninstallOptions says what to remove. Empty names mean: as installed.
type UninstallOptions struct {
	Slot, Publication string
	// Force drops dead letters and whatever was built on schema amqp as well. A slot that is
	// in use is never dropped.
	Force bool
}

// UninstallReport says in sentences what was removed and what was left.
type UninstallReport struct {
	Removed []string `json:"removed"`
	Kept    []string `json:"kept"`
}

// Uninstall removes schema amqp with its brokers, the publication and the slots with all
// that is not delivered, and gives EXECUTE on pg_logical_emit_message back to PUBLIC, which
// is how PostgreSQL comes. It refuses as a whole while a daemon uses a slot.
func Uninstall(ctx context.Context, conn *pgx.Conn, o UninstallOptions) (UninstallReport, error) {
	var report UninstallReport
	if err := checkOwners(ctx, conn, "uninstall"); err != nil {
		return report, err
	}
	before, err := installedBefore(ctx, conn)
	if err != nil {
		return report, err
	}
	slot := firstOf(o.Slot, before.Slot, sql.DefaultName)
	publication := firstOf(o.Publication, before.Publication, sql.DefaultName)
	slots, err := checkBeforeUninstall(ctx, conn, slot, before.Version > 0, o.Force)
	if err != nil {
		return report, err
	}

	// The schema first: it is what may be refused by the server, and then nothing is lost.
	if err := dropSchema(ctx, conn, before.Extension, o.Force, &report); err != nil {
		return report, err
	}
	for _, name := range slots {
		_, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot($1)`, name)
		if hasCode(err, codeUndefinedObject) {
			continue
		}
		if err != nil {
			return report, fmt.Errorf("drop slot %q: %w; the schema is gone already, so finish with: select pg_drop_replication_slot(%s);",
				name, err, sql.Literal(name))
		}
		report.removed("slot %s", name)
	}
	present, err := HasPublication(ctx, conn, publication)
	if err != nil {
		return report, err
	}
	if present {
		if _, err := conn.Exec(ctx, "drop publication if exists "+quote(publication)); err != nil {
			return report, fmt.Errorf("drop publication %q: %w", publication, err)
		}
		report.removed("publication %s", publication)
	}
	return report, nil
}

// checkBeforeUninstall returns the slots to drop, those of detached brokers included.
func checkBeforeUninstall(ctx context.Context, conn *pgx.Conn, slot string, installed, force bool) ([]string, error) {
	var found problems
	s, err := readServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	candidates, err := laneSlots(ctx, conn, slot)
	if err != nil {
		return nil, err
	}
	var slots []string
	for _, name := range append([]string{slot}, candidates...) {
		status, err := ReadSlot(ctx, conn, name)
		if errors.Is(err, ErrNoSlot) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch {
		case status.Database != s.database || status.Plugin != "pgoutput":
			found.add(fmt.Sprintf("slot %q is not one of pgamqp in this database", name), "name the right one with --slot")
		case status.Active:
			found.add(fmt.Sprintf("slot %q is in use by process %d", name, status.ActivePID),
				fmt.Sprintf("stop the daemon first, or: select pg_terminate_backend(%d);", status.ActivePID))
		default:
			slots = append(slots, name)
		}
	}
	if installed && !force {
		n, err := CountDeadLetters(ctx, conn)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			found.add(fmt.Sprintf("amqp.dead_letter holds %d messages that were not delivered", n),
				"redeliver or delete them, or give --force to drop them")
		}
	}
	return slots, found.err("uninstall")
}

// Objects of ours, each with the statement that drops it without CASCADE, so that the
// server refuses when something of the user's was built on one. Triggers go with their tables.
// Where pg_amqp is back ($1), amqp.broker is its table, with the columns that it had.
const ownObjects = `
select 'drop trigger pgamqp_broker_changed on amqp.broker', 0 as step where $1
union all
select pg_catalog.format('alter table amqp.broker drop column %I', a.attname), 0
  from pg_catalog.pg_attribute a
 where $1 and a.attrelid = pg_catalog.to_regclass('amqp.broker') and a.attnum > 0 and not a.attisdropped
   and a.attname in ('tls', 'tls_ca', 'tls_cert', 'tls_key', 'tls_server_name', 'auth', 'on_reject', 'retry_timeout')
   and a.attname <> all ($2::text[])
union all
select pg_catalog.format('revoke all on %s from %I', o.name, r.rolname), -1 -- while the columns are there that have grants of their own
  from pg_catalog.pg_roles r, (values ('schema amqp'), ('table amqp.broker')) o(name)
 where $1 and r.rolname in ('pgamqp_publisher', 'pgamqp_daemon', 'pgamqp_monitor')
union all
select pg_catalog.format('drop table amqp.%I', c.relname), 1
  from pg_catalog.pg_class c
 where c.relnamespace = pg_catalog.to_regnamespace('amqp')
   and c.relname in ('broker', 'dead_letter', 'installation', 'route', 'route_version', 'snapshot', 'publish_limit', 'signing_key', 'migration') and c.relkind in ('r', 'p')
   and not ($1 and c.relname = 'broker')
union all
select 'drop function ' || p.oid::pg_catalog.regprocedure,
       case when exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relnamespace = p.pronamespace) then 0 else 2 end -- before the table whose rows it returns
  from pg_catalog.pg_proc p join pg_catalog.pg_type t on t.oid = p.prorettype
 where p.pronamespace = pg_catalog.to_regnamespace('amqp')
   and coalesce(p.probin, '') not like '%pg\_amqp%'
   and (pg_catalog.starts_with(p.proname::pg_catalog.text, '_') or p.proname in ('publish', 'autonomous_publish', 'exchange_declare', 'queue_declare', 'queue_bind',
        'exchange_bind', 'disconnect', 'delivered', 'wait_delivered', 'heartbeat', 'redeliver', 'redeliver_all',
        'grant_publish', 'revoke_publish', 'sign_messages', 'require_signatures', 'route_table', 'route_prefix', 'unroute', 'snapshot', 'snapshot_pause', 'snapshot_resume', 'snapshot_cancel'))
union all
select 'drop domain amqp.exchange_name', 3 where pg_catalog.to_regtype('amqp.exchange_name') is not null
order by 2`

func dropSchema(ctx context.Context, conn *pgx.Conn, extension, force bool, report *UninstallReport) error {
	var removed UninstallReport
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		removed = UninstallReport{}
		if _, err := tx.Exec(ctx, `set local search_path = pg_catalog, pg_temp`); err != nil {
			return err
		}
		var present, revoked bool
		if err := tx.QueryRow(ctx, `select pg_catalog.to_regnamespace('amqp') is not null`).Scan(&present); err != nil {
			return err
		}
		if !present {
			return nil
		}
		// Only if we have closed it. An installation that stopped half-way has no record.
		if before, err := installedSteps(ctx, tx); err != nil {
			return err
		} else {
			revoked = before["emit 1"]
		}
		back, columns, err := pgAMQPIsBack(ctx, tx)
		if err != nil {
			return err
		}
		if err := dropObjects(ctx, tx, extension, force, back, columns); err != nil {
			return err
		}
		if back {
			removed.removed("what is pgamqp's in schema amqp")
			removed.kept("functions and brokers of pg_amqp")
		} else {
			removed.removed("schema amqp")
		}
		if revoked {
			if err := reopenEmit(ctx, tx, &removed); err != nil {
				return err
			}
		}
		return dropRoles(ctx, tx, &removed)
	})
	if hasCode(err, codeDependentObjects) {
		return &ProblemsError{Action: "uninstall", Problems: []Problem{{
			What: "something else was built on schema amqp: " + oneLine(describe(err).Error()),
			Fix:  "drop it first, or give --force to drop it along",
		}}}
	}
	if err != nil {
		return fmt.Errorf("drop schema amqp: %w", describe(err))
	}
	report.Removed = append(report.Removed, removed.Removed...)
	report.Kept = append(report.Kept, removed.Kept...)
	return nil
}

// pgAMQPIsBack tells whether a migration from pg_amqp was undone, and which columns its table had.
func pgAMQPIsBack(ctx context.Context, tx pgx.Tx) (back bool, columns []string, err error) {
	if err := tx.QueryRow(ctx, `select pg_catalog.to_regclass('amqp.migration') is not null`).Scan(&back); err != nil || !back {
		return false, nil, err
	}
	err = tx.QueryRow(ctx, `select m.undone_at is not null, array(select pg_catalog.jsonb_array_elements_text(m.state -> 'columns')) from amqp.migration m`).
		Scan(&back, &columns)
	return back, columns, err
}

func dropObjects(ctx context.Context, tx pgx.Tx, extension, force, back bool, columns []string) error {
	if extension {
		drop := "drop extension amqp"
		if force {
			drop += " cascade"
		}
		if _, err := tx.Exec(ctx, drop); err != nil {
			return err
		}
	}
	if force && !back {
		_, err := tx.Exec(ctx, "drop schema amqp cascade")
		return err
	}
	rows, err := tx.Query(ctx, ownObjects, back, columns)
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var statement string
		var step int
		return statement, row.Scan(&statement, &step)
	})
	if err != nil {
		return err
	}
	if !back {
		statements = append(statements, "drop schema amqp")
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// installedSteps returns the one-time steps that an installation has done.
func installedSteps(ctx context.Context, tx pgx.Tx) (map[string]bool, error) {
	var present bool
	if err := tx.QueryRow(ctx, `select pg_catalog.to_regclass('amqp.installation') is not null`).Scan(&present); err != nil || !present {
		return nil, err
	}
	var names []string
	err := tx.QueryRow(ctx, `select coalesce((select steps from amqp.installation), '{}')`).Scan(&names)
	steps := make(map[string]bool, len(names))
	for _, name := range names {
		steps[name] = true
	}
	return steps, err
}

// reopenEmit undoes what the installation did for the safety of schema amqp.
func reopenEmit(ctx context.Context, tx pgx.Tx, report *UninstallReport) error {
	rows, err := tx.Query(ctx, `select p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p
		where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = 'pg_logical_emit_message'`)
	if err != nil {
		return err
	}
	signatures, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, signature := range signatures {
		err := inSavepoint(ctx, tx, fmt.Sprintf("grant execute on function %s to public", signature))
		switch {
		case hasCode(err, codeInsufficientPrivilege):
			report.kept("%s is not open to PUBLIC again: %v", signature, err)
		case err != nil:
			return err
		}
	}
	report.removed("restriction of pg_logical_emit_message")
	return nil
}

// dropRoles drops the roles unless somebody still uses them: they belong to the whole
// cluster, and another database may have its own pgamqp.
func dropRoles(ctx context.Context, tx pgx.Tx, report *UninstallReport) error {
	for _, role := range []string{"pgamqp_publisher", "pgamqp_daemon", "pgamqp_monitor"} {
		var exists, hasMembers bool
		err := tx.QueryRow(ctx, `select pg_catalog.to_regrole($1) is not null,
			exists (select from pg_catalog.pg_auth_members m where m.roleid = pg_catalog.to_regrole($1) and m.member <> session_user::pg_catalog.regrole)`,
			role).Scan(&exists, &hasMembers)
		if err != nil {
			return err
		}
		if !exists {
			continue
		}
		if hasMembers {
			report.kept("role %s: it has members", role)
			continue
		}
		err = inSavepoint(ctx, tx, "drop role "+role)
		switch {
		case hasCode(err, codeDependentObjects), hasCode(err, codeInsufficientPrivilege), hasCode(err, codeObjectInUse):
			report.kept("role %s: %s", role, oneLine(describe(err).Error()))
		case err != nil:
			return err
		default:
			report.removed("role %s", role)
		}
	}
	return nil
}

// inSavepoint keeps the transaction usable when the statement is refused.
func inSavepoint(ctx context.Context, tx pgx.Tx, statement string) error {
	return pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, statement)
		return err
	})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (r *UninstallReport) removed(format string, args ...any) {
	r.Removed = append(r.Removed, fmt.Sprintf(format, args...))
}

func (r *UninstallReport) kept(format string, args ...any) {
	r.Kept = append(r.Kept, fmt.Sprintf(format, args...))
}
