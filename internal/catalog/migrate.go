package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// MigrateOptions says how to take over from pg_amqp. Empty names mean: as installed before, else "pgamqp".
type MigrateOptions struct {
	Slot, Publication string
	KeepPublic        bool // what PUBLIC could call, it can call afterwards
	DryRun            bool // do everything, and roll it back
}

// MigrateReport says what a migration did, or would do.
type MigrateReport struct {
	DryRun     bool     `json:"dry_run"`
	Statements []string `json:"statements"` // in the order in which they were run
	Done       []string `json:"done"`
	Present    []string `json:"present,omitempty"`
	ToDo       []string `json:"to_do"` // what is left to a person
	Warnings   []string `json:"warnings"`
}

func newMigrateReport(dryRun bool) MigrateReport { // none is a list in JSON, too
	return MigrateReport{DryRun: dryRun, Statements: []string{}, Done: []string{}, ToDo: []string{}, Warnings: []string{}}
}

// errDryRun rolls a transaction back.
var errDryRun = errors.New("dry run")

// keptState is where the way back is kept. It holds no passwords.
const keptState = `
create table if not exists amqp.migration (
  one_row boolean primary key default true check (one_row), migrated_at timestamptz not null default now(), undone_at timestamptz, state jsonb not null);
comment on table amqp.migration is 'what was there of pg_amqp before; pgamqp migrate --undo brings it back'`

// Migrate puts pgamqp in the place of pg_amqp: functions, grants, the columns of amqp.broker, and everything that was
// built on the functions. That is one transaction; publication and slot come before it, so that no message is published
// into a slot that is not there yet, and go again if it fails.
func Migrate(ctx context.Context, conn *pgx.Conn, o MigrateOptions) (MigrateReport, error) {
	report := newMigrateReport(o.DryRun)
	s, err := readServer(ctx, conn)
	if err != nil {
		return report, err
	}
	if err := checkOwners(ctx, conn, "migrate"); err != nil {
		return report, err
	}
	if err := checkPgAMQPIsThere(ctx, conn); err != nil {
		return report, err
	}
	before, err := installedBefore(ctx, conn)
	if err != nil {
		return report, err
	}
	slot := firstOf(o.Slot, before.Slot, sql.DefaultName)
	publication := firstOf(o.Publication, before.Publication, sql.DefaultName)
	slotExists, err := checkBeforeInstall(ctx, conn, s, before, slot, publication)
	if err != nil {
		return report, err
	}
	published, err := HasPublication(ctx, conn, publication)
	if err != nil {
		return report, err
	}

	// All of it once for the sake of refusing: waiting for the slot would be in vain.
	trial := newMigrateReport(true)
	if err := migrateSchema(ctx, conn, o, slot, publication, &trial); !errors.Is(err, errDryRun) {
		return trial, err
	}
	if o.DryRun {
		if !published {
			trial.Statements = append([]string{"create publication " + quote(publication) + " with (publish_via_partition_root = true)"}, trial.Statements...)
		}
		if !slotExists {
			trial.Statements = append([]string{"-- create replication slot " + slot}, trial.Statements...)
		}
		return trial, nil
	}

	var installed InstallReport
	undo := func(err error) error {
		return errors.Join(err, dropNew(ctx, conn, slot, slotExists, publication, published))
	}
	if err := installPublication(ctx, conn, publication, &installed); err != nil {
		return report, err
	}
	if err := installSlot(ctx, conn, s, slot, slotExists, &installed); err != nil {
		return report, undo(err)
	}
	if err := migrateSchema(ctx, conn, o, slot, publication, &report); err != nil {
		return report, undo(err)
	}
	report.Done = append(installed.Done, report.Done...)
	report.Present = installed.Present
	warnings, err := Warnings(ctx, conn)
	for _, w := range warnings {
		report.Warnings = append(report.Warnings, w.String())
	}
	return report, err
}

func checkPgAMQPIsThere(ctx context.Context, conn *pgx.Conn) error {
	var there bool
	err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_proc p
		where p.pronamespace = pg_catalog.to_regnamespace('amqp') and p.probin like '%pg\_amqp%')`).Scan(&there)
	if err != nil {
		return fmt.Errorf("look for pg_amqp: %w", err)
	}
	var found problems
	if !there {
		found.add("this database has no function of pg_amqp", `name the right database; without pg_amqp, "pgamqp install" is enough`)
	}
	return found.err("migrate")
}

// dropNew removes slot and publication that were made for a migration that failed.
func dropNew(ctx context.Context, conn *pgx.Conn, slot string, slotExists bool, publication string, published bool) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	if !slotExists {
		_, err := conn.Exec(ctx, `select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = $1`, slot)
		if err != nil {
			errs = append(errs, fmt.Errorf("slot %q is left and keeps WAL: %w", slot, err))
		}
	}
	if !published {
		if _, err := conn.Exec(ctx, "drop publication if exists "+quote(publication)); err != nil {
			errs = append(errs, fmt.Errorf("publication %q is left: %w", publication, err))
		}
	}
	return errors.Join(errs...)
}

// migrateSchema is the transaction. A dry run ends with errDryRun.
func migrateSchema(ctx context.Context, conn *pgx.Conn, o MigrateOptions, slot, publication string, report *MigrateReport) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		c := &changes{tx: tx}
		err := migrateIn(ctx, c, o, slot, publication, report)
		report.Statements = c.statements
		if err == nil && report.DryRun {
			err = errDryRun
		}
		return err
	})
}

func migrateIn(ctx context.Context, c *changes, o MigrateOptions, slot, publication string, report *MigrateReport) error {
	if err := c.settle(ctx); err != nil {
		return err
	}
	state, err := findPgAMQP(ctx, c.tx)
	if err != nil {
		return err
	}
	if len(state.Functions) == 0 {
		return &ProblemsError{Action: "migrate", Problems: []Problem{{What: "somebody else has just removed pg_amqp"}}}
	}
	dependents, err := c.swap(ctx, "migrate", state.oids(), func() error {
		if err := state.detach(ctx, c); err != nil {
			return err
		}
		return installOver(ctx, c, slot, publication, state)
	}, func(d dependent) []string { return d.Restore })
	if err != nil {
		return err
	}
	from := "functions of pg_amqp"
	if state.Extension != "" {
		from = "extension amqp " + state.Extension
	}
	report.done("schema amqp: %s replaced by pgamqp, version %d", from, sql.Version)
	if err := migrateBrokers(ctx, c, state.Columns, report); err != nil {
		return err
	}
	if err := migrateGrants(ctx, c, state, o.KeepPublic, report); err != nil {
		return err
	}
	if err := tellDependents(ctx, c, state, dependents, report); err != nil {
		return err
	}
	return keepState(ctx, c, state)
}

// installOver runs the scripts of the installation, which drop what is left of pg_amqp.
func installOver(ctx context.Context, c *changes, slot, publication string, state *savedState) error {
	if _, err := c.tx.Exec(ctx, `select set_config($1, $2, true), set_config($3, $4, true)`,
		sql.SlotSetting, slot, sql.PublicationSetting, publication); err != nil {
		return err
	}
	what := "functions of pg_amqp are dropped"
	if state.Extension != "" {
		what = "extension amqp " + state.Extension + " is dropped with its functions"
	}
	c.statements = append(c.statements, "-- here runs what `pgamqp install --print` shows: "+what+", amqp.broker stays, pgamqp is installed")
	for _, script := range sql.Scripts() {
		_, err := c.tx.Exec(ctx, script.Text)
		if hasCode(err, codeDependentObjects) {
			return &ProblemsError{Action: "migrate", Problems: []Problem{{
				What: "something else was built on pg_amqp: " + oneLine(describe(err).Error()), Fix: "drop it, and create it again afterwards",
			}}}
		}
		if err != nil {
			return fmt.Errorf("install schema amqp: %s: %w", script.Name, describe(err))
		}
	}
	return nil
}

// migrateGrants gives those who could call a function of pg_amqp by a grant of their own the ones of the same name.
func migrateGrants(ctx context.Context, c *changes, state *savedState, keepPublic bool, report *MigrateReport) error {
	var public []string
	for _, f := range state.Functions {
		signatures, err := c.list(ctx, `select p.oid::regprocedure::text from pg_proc p
			where p.pronamespace = 'amqp'::regnamespace and p.proname = $1 order by 1`, f.Name)
		if err != nil {
			return err
		}
		for _, g := range f.Grants {
			if g.Public && !keepPublic {
				public = append(public, "amqp."+f.Name)
				continue
			}
			for _, signature := range signatures {
				if err := c.exec(ctx, grantStatement(signature, g)); err != nil {
					return err
				}
			}
			report.done("%s may call amqp.%s, as before", g.Role, f.Name)
		}
	}
	if keepPublic {
		for _, statement := range state.Public {
			if strings.Contains(statement, " on schema ") {
				if err := c.exec(ctx, statement); err != nil {
					return err
				}
			}
		}
	} else if len(public) > 0 {
		report.warn("every role could call %s, which is PostgreSQL's default, and cannot any more", strings.Join(public, ", "))
		roles, err := c.list(ctx, `select distinct a.grantee::regrole::text from pg_namespace n, aclexplode(n.nspacl) a
			where n.nspname = 'amqp' and a.privilege_type = 'USAGE' and a.grantee not in (0, n.nspowner)
			  and a.grantee::regrole::text not in ('pgamqp_publisher', 'pgamqp_daemon')
			  and not has_function_privilege(a.grantee, 'amqp.publish(integer, text, text, text)', 'execute') order by 1`)
		if err != nil {
			return err
		}
		for _, role := range roles {
			report.todo("role %s has USAGE on schema amqp and could call its functions; if it publishes: grant pgamqp_publisher to %s", role, role)
		}
	}
	readers, err := c.list(ctx, secretReaders)
	if err != nil {
		return err
	}
	for _, role := range readers {
		report.todo("role %s can read passwords and keys in amqp.broker, as who published with pg_amqp had to; if it need not: revoke select on amqp.broker from %s", role, role)
	}
	for _, statement := range state.Public {
		if !keepPublic || !strings.Contains(statement, " on schema ") {
			report.warn("PUBLIC had a privilege that was taken away: %s", statement)
		}
	}
	return nil
}

// secretReaders are the roles that were granted the columns of amqp.broker that hold secrets: pg_amqp read the table as
// whoever published. What PUBLIC had is taken away.
const secretReaders = `
select distinct g.grantee::pg_catalog.regrole::text
  from (select a.grantee, c.relowner from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
         where c.oid = 'amqp.broker'::pg_catalog.regclass and a.privilege_type = 'SELECT'
        union all
        select a.grantee, c.relowner from pg_catalog.pg_class c join pg_catalog.pg_attribute t on t.attrelid = c.oid, pg_catalog.aclexplode(t.attacl) a
         where c.oid = 'amqp.broker'::pg_catalog.regclass and a.privilege_type = 'SELECT' and t.attname in ('password', 'tls_key', 'key', 'key_password')) g
 where g.grantee not in (0, g.relowner) and g.grantee is distinct from pg_catalog.to_regrole('pgamqp_daemon')
 order by 1`

// tellDependents remembers how dependents read now, and names those that need a look.
func tellDependents(ctx context.Context, c *changes, state *savedState, before []dependent, report *MigrateReport) error {
	ours, err := c.oids(ctx, ourFunctions)
	if err != nil {
		return err
	}
	after, err := readDependents(ctx, c.tx, ours)
	if err != nil {
		return err
	}
	now := map[string][]string{}
	for _, d := range after {
		now[d.Name] = d.Restore
	}
	for _, d := range before {
		state.Dependents = append(state.Dependents, savedDependent{Name: d.Name, Before: d.Restore, After: now[d.Name]})
		report.done("%s: kept", d.Name)
		if d.Note != "" {
			report.warn("%s %s", d.Name, d.Note)
		}
	}
	callers, err := c.list(ctx, `select p.oid::regprocedure::text from pg_proc p
		where p.prosrc ~ '\mamqp\s*\.\s*"?(publish|autonomous_publish|exchange_declare|disconnect)' and p.pronamespace <> 'amqp'::regnamespace
		order by 1`)
	if err != nil {
		return err
	}
	if len(callers) > 0 {
		report.done("functions that call pg_amqp in their text, and go on unchanged: %s", strings.Join(callers, ", "))
	}
	return nil
}

// ourFunctions have the names that those of pg_amqp have.
const ourFunctions = `select p.oid from pg_catalog.pg_proc p
 where p.pronamespace = pg_catalog.to_regnamespace('amqp') and p.probin is null
   and p.proname in ('publish', 'autonomous_publish', 'exchange_declare', 'disconnect')`

func keepState(ctx context.Context, c *changes, state *savedState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := c.exec(ctx, strings.TrimSpace(keptState)); err != nil {
		return err
	}
	// After a way back the table still has the columns of pgamqp: those of the first time count.
	_, err = c.tx.Exec(ctx, `insert into amqp.migration as m (state) values ($1)
		on conflict (one_row) do update set state = excluded.state || jsonb_build_object('columns', m.state -> 'columns'), migrated_at = now(), undone_at = null`, string(text))
	return err
}

func (r *MigrateReport) done(format string, args ...any) {
	r.Done = append(r.Done, fmt.Sprintf(format, args...))
}

func (r *MigrateReport) todo(format string, args ...any) {
	r.ToDo = append(r.ToDo, fmt.Sprintf(format, args...))
}

func (r *MigrateReport) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}
