package catalog

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// savedState is what a migration found, in the table amqp.migration: the way back.
type savedState struct {
	// Extension is the version of extension amqp, empty if its objects were there without one.
	Extension string `json:"extension,omitempty"`
	// Dumped tells whether the extension had pg_dump write the rows of amqp.broker.
	Dumped    bool            `json:"dumped,omitempty"`
	Functions []savedFunction `json:"functions"`
	// Public is what PUBLIC had on the schema and the table, as statements.
	Public []string `json:"public,omitempty"`
	// Columns are those that amqp.broker had.
	Columns []string `json:"columns"`
	// Attached are the statements that make other objects belong to the extension again.
	Attached   []string         `json:"attached,omitempty"`
	Dependents []savedDependent `json:"dependents,omitempty"`
}

// savedFunction is one function of pg_amqp.
type savedFunction struct {
	OID        uint32       `json:"-"`
	Name       string       `json:"name"`
	Signature  string       `json:"signature"`
	Definition string       `json:"definition"`
	Owner      string       `json:"owner"`
	Comment    *string      `json:"comment,omitempty"`
	Grants     []savedGrant `json:"grants,omitempty"`
}

// savedGrant is EXECUTE on a function, of somebody who is not its owner.
type savedGrant struct {
	Role   string `json:"role"` // quoted; "public" is everybody
	Public bool   `json:"public,omitempty"`
	Option bool   `json:"option,omitempty"` // with grant option
}

// savedDependent is what was built on the functions: its definition before the migration, and what PostgreSQL says of
// it afterwards. While it still says the same, the way back can give it its own words again.
type savedDependent struct {
	Name   string   `json:"name"`
	Before []string `json:"before"`
	After  []string `json:"after"`
}

// pgAMQPFunctions are what came from the library of pg_amqp, extension or not.
const pgAMQPFunctions = `
select p.oid, p.proname, p.oid::pg_catalog.regprocedure::text, pg_catalog.rtrim(pg_catalog.pg_get_functiondef(p.oid), E'\n'),
       pg_catalog.quote_ident(r.rolname), pg_catalog.obj_description(p.oid, 'pg_proc'),
       coalesce((select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('role', case when a.grantee = 0 then 'public' else a.grantee::pg_catalog.regrole::text end,
                          'public', a.grantee = 0, 'option', a.is_grantable) order by a.grantee)
          from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
         where a.grantee <> p.proowner), '[]')::text
  from pg_catalog.pg_proc p join pg_catalog.pg_roles r on r.oid = p.proowner
 where p.pronamespace = pg_catalog.to_regnamespace('amqp') and p.probin like '%pg\_amqp%' and p.prokind = 'f'
 order by 3`

// findPgAMQP reads what is there of pg_amqp; without functions nothing is.
func findPgAMQP(ctx context.Context, tx pgx.Tx) (*savedState, error) {
	s := &savedState{}
	rows, err := tx.Query(ctx, pgAMQPFunctions)
	if err != nil {
		return nil, fmt.Errorf("look for pg_amqp: %w", err)
	}
	s.Functions, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (savedFunction, error) {
		var f savedFunction
		var grants string
		if err := row.Scan(&f.OID, &f.Name, &f.Signature, &f.Definition, &f.Owner, &f.Comment, &grants); err != nil {
			return f, err
		}
		return f, json.Unmarshal([]byte(grants), &f.Grants)
	})
	if err != nil || len(s.Functions) == 0 {
		return s, err
	}
	c := changes{tx: tx}
	err = tx.QueryRow(ctx, `select coalesce(pg_catalog.max(e.extversion), ''), coalesce(pg_catalog.bool_or(pg_catalog.to_regclass('amqp.broker') = any (e.extconfig)), false)
		from pg_catalog.pg_extension e where e.extname = 'amqp'
		 and exists (select from pg_catalog.pg_depend d where d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid
		               and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = any ($1::oid[]) and d.deptype = 'e')`, s.oids()).
		Scan(&s.Extension, &s.Dumped)
	if err != nil {
		return nil, fmt.Errorf("look for extension amqp: %w", err)
	}
	for _, q := range []struct {
		into  *[]string
		query string
	}{
		{&s.Columns, `select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = pg_catalog.to_regclass('amqp.broker') and a.attnum > 0 and not a.attisdropped`},
		{&s.Public, `
			select pg_catalog.format('grant %s on schema amqp to public', a.privilege_type)
			  from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a where n.nspname = 'amqp' and a.grantee = 0
			union all
			select pg_catalog.format('grant %s on table amqp.broker to public', a.privilege_type)
			  from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a where c.oid = pg_catalog.to_regclass('amqp.broker') and a.grantee = 0
			order by 1`},
	} {
		if *q.into, err = c.list(ctx, q.query); err != nil {
			return nil, fmt.Errorf("look at schema amqp: %w", err)
		}
	}
	return s, nil
}

func (s *savedState) oids() []uint32 {
	oids := make([]uint32, 0, len(s.Functions))
	for _, f := range s.Functions {
		oids = append(oids, f.OID)
	}
	return oids
}

// What belongs to extension amqp, or goes with it, and is not of pg_amqp: DROP EXTENSION would drop it in silence. The
// first column is the statement that detaches it, the second the one that attaches it again. takeover.sql does the same
// for tables and sequences.
const attachedToExtension = `
select pg_catalog.format('alter extension amqp drop %s %s', o.type, o.identity), pg_catalog.format('alter extension amqp add %s %s', o.type, o.identity)
  from pg_catalog.pg_extension e
  join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid and d.deptype = 'e',
  lateral pg_catalog.pg_identify_object(d.classid, d.objid, 0) o
 where e.extname = 'amqp'
   and not (d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = any ($1::oid[]))
   and not (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            and exists (select from pg_catalog.pg_class c where c.oid = d.objid and c.relkind in ('r', 'p', 'S')))
   and not (d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass -- the row types of tables, and their arrays, go with these
            and exists (select from pg_catalog.pg_type t where t.oid = d.objid and (t.typrelid <> 0 or t.typelem <> 0)))
union all
select pg_catalog.format('alter %s %s no depends on extension amqp', o.type, o.name), pg_catalog.format('alter %s %s depends on extension amqp', o.type, o.name)
  from pg_catalog.pg_extension e
  join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid and d.deptype = 'x',
  lateral (select i.type, case when d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
             then (select pg_catalog.format('%I on %s', t.tgname, t.tgrelid::pg_catalog.regclass) from pg_catalog.pg_trigger t where t.oid = d.objid)
             else i.identity end as name from pg_catalog.pg_identify_object(d.classid, d.objid, 0) i) o
 where e.extname = 'amqp'
 order by 1`

// detach takes everything else out of extension amqp before it is dropped.
func (s *savedState) detach(ctx context.Context, c *changes) error {
	rows, err := c.tx.Query(ctx, attachedToExtension, s.oids())
	if err != nil {
		return fmt.Errorf("look at extension amqp: %w", err)
	}
	pairs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (pair [2]string, err error) {
		return pair, row.Scan(&pair[0], &pair[1])
	})
	if err != nil {
		return fmt.Errorf("look at extension amqp: %w", err)
	}
	for _, p := range pairs {
		if err := c.exec(ctx, p[0]); err != nil {
			return err
		}
		s.Attached = append(s.Attached, p[1])
	}
	return nil
}

// grantStatement is one GRANT of EXECUTE.
func grantStatement(signature string, g savedGrant) string {
	statement := fmt.Sprintf("grant execute on function %s to %s", signature, g.Role)
	if g.Option {
		statement += " with grant option"
	}
	return statement
}
