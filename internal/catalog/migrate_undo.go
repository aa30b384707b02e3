package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// UndoMigration makes the functions those of pg_amqp again, with their owners and grants, and brings back what was built
// on them, in one transaction. The rest of schema amqp stays, and the slot: the daemon goes on to deliver what has been
// published through pgamqp, so nothing is lost at any time. [Uninstall] removes it afterwards and leaves pg_amqp alone.
func UndoMigration(ctx context.Context, conn *pgx.Conn, dryRun bool) (MigrateReport, error) {
	report := newMigrateReport(dryRun)
	if err := checkOwners(ctx, conn, "undo"); err != nil {
		return report, err
	}
	installed, err := installedBefore(ctx, conn)
	if err != nil {
		return report, err
	}
	var there bool
	if err := conn.QueryRow(ctx, `select pg_catalog.to_regclass('amqp.migration') is not null`).Scan(&there); err != nil {
		return report, fmt.Errorf("look for amqp.migration: %w", err)
	}
	var found problems
	switch {
	case !there:
		found.add("this database was not migrated from pg_amqp", "name the right database")
	case installed.Extension:
		found.add("schema amqp has become extension amqp of pgamqp", "there is no way back from that: keep what you need, drop the extension, and create pg_amqp's")
	}
	if err := found.err("undo"); err != nil {
		return report, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		c := &changes{tx: tx}
		err := undoIn(ctx, c, &report)
		report.Statements = c.statements
		if err == nil && dryRun {
			err = errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return report, err
}

func undoIn(ctx context.Context, c *changes, report *MigrateReport) error {
	if err := c.settle(ctx); err != nil {
		return err
	}
	state, err := readState(ctx, c.tx)
	if err != nil {
		return err
	}
	var found problems
	if state == nil {
		found.add("the migration was undone already", `remove the rest of pgamqp with "pgamqp uninstall"`)
	} else if err := state.checkExtension(ctx, c.tx, &found); err != nil {
		return err
	}
	if err := found.err("undo"); err != nil {
		return err
	}
	ours, err := c.oids(ctx, ourFunctions)
	if err != nil {
		return err
	}
	dependents, err := c.swap(ctx, "undo", ours, func() error {
		if err := c.generate(ctx, `select 'drop function ' || f.oid::regprocedure from (`+ourFunctions+`) f order by 1`); err != nil {
			return err
		}
		return state.bringBack(ctx, c)
	}, state.definition)
	if err != nil {
		return err
	}
	for _, d := range dependents {
		report.done("%s: kept", d.Name)
		if d.Note != "" {
			report.warn("%s %s", d.Name, d.Note)
		}
	}
	report.done("schema amqp: the functions are those of pg_amqp again")
	report.todo(`when "pgamqp status" shows no lag and no dead letters, stop the daemon and run "pgamqp uninstall"; it leaves pg_amqp and its brokers`)
	// What was granted once is to be granted again, if the migration is repeated.
	if err := c.exec(ctx, `update amqp.installation set steps = array(select s from unnest(steps) s where s = 'emit 1')`); err != nil {
		return err
	}
	return c.exec(ctx, `update amqp.migration set undone_at = now()`)
}

// readState returns nil when the migration was undone.
func readState(ctx context.Context, tx pgx.Tx) (*savedState, error) {
	var text string
	err := tx.QueryRow(ctx, `select m.state::text from amqp.migration m where m.undone_at is null`).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read amqp.migration: %w", err)
	}
	state := &savedState{}
	if err := json.Unmarshal([]byte(text), state); err != nil {
		return nil, fmt.Errorf("read amqp.migration: %w", err)
	}
	return state, nil
}

// checkExtension looks for the files of pg_amqp, which may have been removed from the server since.
func (s *savedState) checkExtension(ctx context.Context, tx pgx.Tx, found *problems) error {
	if s.Extension == "" {
		return nil // the first function that is created will find no library
	}
	var there bool
	err := tx.QueryRow(ctx, `select exists (select from pg_available_extension_versions v where v.name = 'amqp' and v.version = $1)`, s.Extension).Scan(&there)
	if err != nil {
		return fmt.Errorf("look for extension amqp %s: %w", s.Extension, err)
	}
	if !there {
		found.add(fmt.Sprintf("the files of extension amqp %s are not on the database server any more", s.Extension), "install them again")
	}
	return nil
}

// bringBack makes pg_amqp again as it was.
func (s *savedState) bringBack(ctx context.Context, c *changes) error {
	if s.Extension != "" {
		if err := s.createExtension(ctx, c); err != nil {
			return err
		}
	}
	for _, f := range s.Functions {
		if s.Extension == "" {
			if err := c.exec(ctx, f.Definition); err != nil {
				return err
			}
		}
		if f.Comment != nil {
			if err := c.exec(ctx, fmt.Sprintf("comment on function %s is %s", f.Signature, sql.Literal(*f.Comment))); err != nil {
				return err
			}
		}
		statements := []string{
			fmt.Sprintf("alter function %s owner to %s", f.Signature, f.Owner),
			fmt.Sprintf("revoke all on function %s from public", f.Signature),
		}
		for _, g := range f.Grants {
			statements = append(statements, grantStatement(f.Signature, g))
		}
		if err := c.all(ctx, statements); err != nil {
			return err
		}
	}
	if err := c.all(ctx, s.Public); err != nil {
		return err
	}
	return c.exec(ctx, `update amqp.broker set password = substr(password, 9) where password ~ '^literal:(file|env|literal):'`)
}

// createExtension makes the extension anew, whose script creates the table amqp.broker: ours steps aside for a moment,
// and takes the place of that one, so that it is the same table all the time.
func (s *savedState) createExtension(ctx context.Context, c *changes) error {
	var sequence *string
	if err := c.tx.QueryRow(ctx, `select pg_get_serial_sequence('amqp.broker', 'broker_id')`).Scan(&sequence); err != nil {
		return err
	}
	err := c.all(ctx, []string{
		`create schema pgamqp_aside`,
		`alter table amqp.broker set schema pgamqp_aside`,
		`create extension amqp version ` + sql.Literal(s.Extension),
	})
	if err != nil {
		return err
	}
	err = c.generate(ctx, `select format('alter extension amqp drop %s %s', case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass)
		from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'amqp' join pg_class c on c.oid = d.objid
		where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e' and c.relkind in ('r', 'p', 'S')`)
	if err != nil {
		return err
	}
	statements := []string{
		`drop table amqp.broker`,
		`alter table pgamqp_aside.broker set schema amqp`,
		`drop schema pgamqp_aside`,
		`alter extension amqp add table amqp.broker`,
	}
	if sequence != nil {
		statements = append(statements, `alter extension amqp add sequence `+*sequence)
	}
	if s.Dumped {
		// pg_extension_config_dump is for the script of an extension only.
		statements = append(statements, `update pg_extension set extconfig = array['amqp.broker'::regclass::oid], extcondition = array[''] where extname = 'amqp'`)
	}
	return c.all(ctx, append(statements, s.Attached...))
}

// definition is what a dependent is to be on the functions of pg_amqp: what it was, unless it was changed since.
func (s *savedState) definition(d dependent) []string {
	for _, saved := range s.Dependents {
		if saved.Name == d.Name && slices.Equal(saved.After, d.Restore) {
			return saved.Before
		}
	}
	definition := make([]string, 0, len(d.Restore))
	for _, statement := range d.Restore { // the domain is pgamqp's
		definition = append(definition, strings.ReplaceAll(statement, "::amqp.exchange_name", "::text"))
	}
	return definition
}
