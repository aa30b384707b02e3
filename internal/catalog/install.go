package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// InstallOptions names what to create. Empty means: as installed before, else "pgamqp".
type InstallOptions struct{ Slot, Publication string }

// InstallReport says in sentences what an installation did.
type InstallReport struct {
	Done     []string `json:"done"`     // what it has changed
	Present  []string `json:"present"`  // what was there already
	Warnings []string `json:"warnings"` // what an operator should know or do
}

// Install creates schema, publication and slot, or upgrades them. It may be repeated: what
// is there stays, grants and rows included. What cannot work is refused, as a
// [ProblemsError], before anything is changed.
func Install(ctx context.Context, conn *pgx.Conn, o InstallOptions) (InstallReport, error) {
	var report InstallReport
	s, err := readServer(ctx, conn)
	if err != nil {
		return report, err
	}
	if err := checkOwners(ctx, conn, "install"); err != nil {
		return report, err
	}
	before, err := installedBefore(ctx, conn)
	if hasCode(err, codeInsufficientPrivilege) {
		var found problems
		s.check(&found)
		found.add(fmt.Sprintf("schema amqp is there, and role %q may not look into it", s.role),
			"install as its owner")
		return report, found.err("install")
	}
	if err != nil {
		return report, err
	}
	slot := firstOf(o.Slot, before.Slot, sql.DefaultName)
	publication := firstOf(o.Publication, before.Publication, sql.DefaultName)
	slotExists, err := checkBeforeInstall(ctx, conn, s, before, slot, publication)
	if err != nil {
		return report, err
	}

	// Before anything is written: a slot that meets a row change from a time without its
	// publication is stuck, up to version 17 for good.
	if err := installPublication(ctx, conn, publication, &report); err != nil {
		return report, err
	}
	if err := installSchema(ctx, conn, before.Extension, slot, publication); err != nil {
		return report, err
	}
	switch {
	case before.Version == 0:
		report.done("schema amqp: installed, version %d", sql.Version)
	case before.Version != sql.Version:
		report.done("schema amqp: upgraded from version %d to %d", before.Version, sql.Version)
	case before.Extension:
		report.present("schema amqp: extension amqp, version %d", sql.Version)
	default:
		report.present("schema amqp: version %d; its functions were renewed", sql.Version)
	}

	if err := installSlot(ctx, conn, s, slot, slotExists, &report); err != nil {
		return report, err
	}

	if before.Slot != "" && before.Slot != slot {
		if _, err := ReadSlot(ctx, conn, before.Slot); err == nil {
			report.warn("slot %q was used before; it keeps what is not delivered, and all WAL from there on, until it is drained or dropped: select pg_drop_replication_slot(%s);",
				before.Slot, sql.Literal(before.Slot))
		}
	}
	warnings, err := Warnings(ctx, conn)
	for _, w := range warnings {
		report.Warnings = append(report.Warnings, w.String())
	}
	return report, err
}

// checkBeforeInstall finds all that would make an installation fail half-way. It tells
// whether the slot is there.
func checkBeforeInstall(ctx context.Context, conn *pgx.Conn, s server, before Installation, slot, publication string) (bool, error) {
	var found problems
	s.check(&found)
	checkNames(&found, slot, publication)
	if before.Version > sql.Version {
		found.add(fmt.Sprintf("schema amqp has version %d, this program knows versions up to %d", before.Version, sql.Version),
			"use a pgamqp that is at least as new as the one that installed it")
	}
	status, err := ReadSlot(ctx, conn, slot)
	exists := err == nil
	switch {
	case exists:
		status.check(&found, s.database)
	case !errors.Is(err, ErrNoSlot):
		return false, err
	case s.usedSlots >= s.maxSlots:
		found.add(fmt.Sprintf("all %d replication slots of the server are in use", s.maxSlots),
			fmt.Sprintf("alter system set max_replication_slots = %d; and restart PostgreSQL, or drop a slot that nobody needs", s.maxSlots+10))
	}
	return exists, found.err("install")
}

// installedBefore returns the zero value when nothing is installed.
func installedBefore(ctx context.Context, conn *pgx.Conn) (Installation, error) {
	before, err := ReadInstallation(ctx, conn)
	if errors.Is(err, ErrNotInstalled) {
		return Installation{}, nil
	}
	return before, err
}

// installSchema runs the scripts in one transaction. They take a lock, so that two
// installations come one after the other. What belongs to an extension only the extension
// renews; privileges that an earlier installation was not allowed to set are tried again.
func installSchema(ctx context.Context, conn *pgx.Conn, extension bool, slot, publication string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
			pg_catalog.set_config('standard_conforming_strings', 'on', true), pg_catalog.set_config($1, $2, true), pg_catalog.set_config($3, $4, true)`,
			sql.SlotSetting, slot, sql.PublicationSetting, publication)
		if err != nil {
			return fmt.Errorf("install schema amqp: %w", err)
		}
		scripts := sql.Scripts()
		if extension {
			scripts = []sql.Script{
				{Name: "extension amqp", Text: fmt.Sprintf("alter extension amqp update to '%d'", sql.Version)},
				sql.Privileges(),
			}
		}
		for _, script := range scripts {
			_, err := tx.Exec(ctx, script.Text)
			if hasCode(err, codeDependentObjects) && script.Name == "takeover.sql" {
				return fmt.Errorf("install schema amqp: %w; \"pgamqp migrate --from-pg_amqp\" keeps what was built on pg_amqp", describe(err))
			}
			if err != nil {
				return fmt.Errorf("install schema amqp: %s: %w", script.Name, describe(err))
			}
		}
		return nil
	})
}

func installPublication(ctx context.Context, conn *pgx.Conn, name string, report *InstallReport) error {
	present, err := HasPublication(ctx, conn, name)
	if err != nil {
		return err
	}
	if present {
		report.present("publication %s: there", name)
		return nil
	}
	_, err = conn.Exec(ctx, "create publication "+quote(name)+" with (publish_via_partition_root = true)")
	switch {
	case hasCode(err, codeDuplicateObject), hasCode(err, codeUniqueViolation): // another installation was faster
		report.present("publication %s: there", name)
		return nil
	case err != nil:
		return fmt.Errorf("create publication %q: %w", name, describe(err))
	}
	report.done("publication %s: created; it stays empty unless you add tables", name)
	return nil
}

func installSlot(ctx context.Context, conn *pgx.Conn, s server, name string, exists bool, report *InstallReport) error {
	if exists {
		report.present("slot %s: there", name)
		return nil
	}
	lsn, err := createSlot(ctx, conn, s, name)
	switch {
	case hasCode(err, codeDuplicateObject): // another installation was faster; is its slot any good?
		var found problems
		status, err := ReadSlot(ctx, conn, name)
		if err != nil {
			return err
		}
		status.check(&found, s.database)
		report.present("slot %s: there", name)
		return found.err("install")
	case err != nil:
		return err
	}
	report.done("slot %s: created; messages are delivered from %s on", name, lsn)
	return nil
}

// Warnings returns what does not keep pgamqp from running, but an operator should know.
func Warnings(ctx context.Context, conn *pgx.Conn) ([]Problem, error) {
	var warnings problems
	s, err := readServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	var open bool
	var closing *string
	var missing []string
	err = conn.QueryRow(ctx, `
		select coalesce(bool_or(pg_catalog.has_function_privilege('public', p.oid, 'execute')), false),
		       (select coalesce(array_agg(r.name order by r.name), '{}') from (values ('pgamqp_daemon'), ('pgamqp_publisher'), ('pgamqp_monitor')) r(name)
		         where pg_catalog.to_regrole(r.name) is null),
		       -- The functions of schema amqp run as their owner, who must not lose it.
		       (select pg_catalog.format('%srevoke execute on function %s from public;',
		                 case when not r.rolsuper then pg_catalog.format('grant execute on function %s to %I; ', f.names, r.rolname) end, f.names)
		          from (select pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ' order by p.oid) as names) f,
		               pg_catalog.pg_proc e join pg_catalog.pg_roles r on r.oid = e.proowner
		         where e.pronamespace = pg_catalog.to_regnamespace('amqp') and e.proname = '_emit')
		  from pg_catalog.pg_proc p
		 where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace and p.proname = 'pg_logical_emit_message'`).
		Scan(&open, &missing, &closing)
	if err != nil {
		return nil, fmt.Errorf("read privileges: %w", err)
	}
	signed, err := requiresSignatures(ctx, conn)
	if err != nil {
		return nil, err
	}
	closes := `as a superuser: run "pgamqp install"`
	if closing != nil {
		closes = "as a superuser: " + strings.TrimSuffix(*closing, ";")
	}
	switch {
	case open && !signed:
		w := "every role of this database may call pg_logical_emit_message, and so forge messages to any broker"
		if s.version < 160000 {
			w += "; in this version one such call can also stop every logical slot of the database for good"
		}
		warnings.add(w, closes+"; where nobody may: select amqp.sign_messages(); then select amqp.require_signatures();")
	case open && s.version < 160000:
		warnings.add("every role of this database may call pg_logical_emit_message: signatures keep out what it forges, but in this version one call can stop every logical slot of the database for good",
			closes+"; where nobody may: use PostgreSQL 16 or later")
	}
	for _, role := range missing {
		warnings.add(fmt.Sprintf("role %s does not exist", role),
			fmt.Sprintf(`"create role %s nologin;" and "pgamqp install", or grant privileges one by one`, role))
	}
	unsigned, err := keysMissing(ctx, conn)
	if err != nil {
		return nil, err
	}
	if unsigned {
		warnings.add("messages must be signed, and amqp.signing_key is empty: nothing can be published, and what was becomes a dead letter",
			"select amqp.sign_messages(); or, to deliver messages that are not signed: select amqp.require_signatures(false);")
	}
	if s.idleTimeout != "" {
		warnings.add(fmt.Sprintf("idle_replication_slot_timeout is %s: a daemon that is stopped for longer loses the slot and all that is in it", s.idleTimeout),
			"alter system set idle_replication_slot_timeout = 0; select pg_reload_conf();")
	}
	return warnings, nil
}

// requiresSignatures tells whether messages must be signed: not where nothing is installed that we may look at, or an
// older version.
func requiresSignatures(ctx context.Context, conn *pgx.Conn) (required bool, err error) {
	var readable bool
	err = conn.QueryRow(ctx, `
		select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		                where n.nspname = 'amqp' and c.relname = 'installation'
		                  and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select'))`).Scan(&readable)
	if err == nil && readable {
		err = conn.QueryRow(ctx, `
			select exists (select from amqp.installation i where pg_catalog.to_jsonb(i) ->> 'signed_from' is not null)`).Scan(&required)
	}
	if err != nil {
		return false, fmt.Errorf("read amqp.installation: %w", err)
	}
	return required, nil
}

func (r *InstallReport) done(format string, args ...any) {
	r.Done = append(r.Done, fmt.Sprintf(format, args...))
}

func (r *InstallReport) present(format string, args ...any) {
	r.Present = append(r.Present, fmt.Sprintf(format, args...))
}

func (r *InstallReport) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

func firstOf(names ...string) string {
	for _, name := range names {
		if name != "" {
			return name
		}
	}
	return ""
}
