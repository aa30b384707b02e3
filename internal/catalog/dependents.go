package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// dependent is an object that was built on functions that are to be replaced by others of the same names.
//
// Wherever PostgreSQL can replace an object in place, stub makes it one of the same shape that needs no function, and
// restore brings its definition back: it stays the same object all the time, with its owner, its grants, its comment and
// all that was built on it. Only triggers and constraints are dropped and made anew.
type dependent struct {
	Name    string   // as in an error of PostgreSQL: view public.v
	Stub    []string // statements that loosen it from the functions
	Restore []string // statements that bring it back
	Note    string   // what is not as before, if anything
	// Problem says why it cannot be kept; then there are no statements.
	Problem, Fix string
}

// dependentsQuery finds what depends on the functions $1. It needs a search_path of pg_catalog alone, so that all names
// in definitions have their schema.
const dependentsQuery = `
with d as (
  select distinct classid, objid, objsubid, pg_describe_object(classid, objid, objsubid) as description
    from pg_depend
   where refclassid = 'pg_proc'::regclass and refobjid = any ($1::oid[]) and deptype not in ('e', 'x')
     and not (classid = 'pg_proc'::regclass and objid = any ($1::oid[]))),
state(letter, word) as (values ('O'::"char", 'enable'), ('D', 'disable'), ('R', 'enable replica'), ('A', 'enable always')),
found as (
  -- views
  select 1 as rank, 'view ' || c.oid::regclass as name,
         array[format('create or replace view %s as select %s', c.oid::regclass, shape.columns)] as stub,
         array[format('create or replace view %s%s as %s', c.oid::regclass,
           (select ' with (' || string_agg(format('%I = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') || ')' from unnest(c.reloptions) o),
           rtrim(pg_get_viewdef(c.oid), ';'))] as restore,
         null as note,
         case when c.relpersistence = 't' then 'it is a temporary view of a session' end as problem,
         'end that session, or let it drop the view' as fix
    from d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.rulename = '_RETURN'
    join pg_class c on c.oid = r.ev_class and c.relkind = 'v',
    lateral (select coalesce(string_agg(format('null::%s%s as %I', format_type(a.atttypid, a.atttypmod),
                      case when a.attcollation <> 0 then ' collate ' || a.attcollation::regcollation end, a.attname), ', ' order by a.attnum), '') as columns
               from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) shape
  union all
  select 1, 'materialized view ' || c.oid::regclass, null, null, null,
         'its rows are what the calls yielded once, and filling it anew would publish again',
         format('keep its definition, drop it (drop materialized view %s), and create it afterwards, with no data if it must not publish', c.oid::regclass)
    from d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    join pg_class c on c.oid = r.ev_class and c.relkind = 'm'
  union all
  -- rules; replaced ones stay enabled or disabled
  select 2, d.description,
         array[format('create or replace rule %I as on %s to %s do instead nothing', r.rulename,
           (array['select', 'update', 'insert', 'delete'])[r.ev_type::text::integer], r.ev_class::regclass)],
         array[regexp_replace(rtrim(pg_get_ruledef(r.oid), ';'), '^CREATE RULE', 'create or replace rule')], null, null, null
    from d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.rulename <> '_RETURN'
  union all
  -- functions with a body in standard SQL; the text of others is no dependency
  select 3, d.description,
         array[format('create or replace %s %s(%s)%s language plpgsql as %L', kind.word, p.oid::regproc, pg_get_function_arguments(p.oid),
           ' returns ' || pg_get_function_result(p.oid), 'begin end')],
         array[rtrim(pg_get_functiondef(p.oid), E'\n')], null,
         case when p.prosqlbody is null or (select bool_or(p.proargdefaults::text ~ format(':funcid %s ', f)) from unnest($1::oid[]) f)
              then 'the default of an argument calls it, which cannot be taken away for a moment' end,
         format('drop %s %s and create it again afterwards', kind.word, p.oid::regprocedure)
    from d join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid,
    lateral (select case p.prokind when 'p' then 'procedure' else 'function' end as word) kind
   where p.prokind in ('f', 'p')
  union all
  -- defaults of columns
  select 4, d.description,
         array[format('alter table only %s alter column %I drop default', a.adrelid::regclass, t.attname)],
         array[format('alter table only %s alter column %I set default %s', a.adrelid::regclass, t.attname, pg_get_expr(a.adbin, a.adrelid))], null,
         case when t.attgenerated <> '' then 'a generated column must be immutable; the functions of pg_amqp claimed to be, those of pgamqp are not' end,
         format('alter table %s alter column %I drop expression; it keeps the values. Publish in a trigger instead', a.adrelid::regclass, t.attname)
    from d join pg_attrdef a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
    join pg_attribute t on t.attrelid = a.adrelid and t.attnum = a.adnum
  union all
  select 4, 'default of domain ' || t.oid::regtype,
         array[format('alter domain %s drop default', t.oid::regtype)],
         array[format('alter domain %s set default %s', t.oid::regtype, pg_get_expr(t.typdefaultbin, 0))], null, null, null
    from d join pg_type t on d.classid = 'pg_type'::regclass and t.oid = d.objid and t.typtype = 'd' and t.typdefaultbin is not null
  union all
  -- checks; those that are only inherited go and come with their parent's
  select 5, d.description,
         array[format('alter %s drop constraint %I', owner.name, k.conname)],
         array_remove(array[format('alter %s add constraint %I %s%s', owner.name, k.conname, pg_get_constraintdef(k.oid),
                        case when k.convalidated then ' not valid' end),
                      format('comment on constraint %I on %s is %L', k.conname, owner.named, obj_description(k.oid, 'pg_constraint'))], null),
         case when k.convalidated then 'is NOT VALID now: it holds for new rows, and the old ones were not looked at, which would have published for each of them' end,
         case when k.contype <> 'c' then 'it needs an immutable function; those of pg_amqp claimed to be, those of pgamqp are not'
              when k.coninhcount > 0 then 'it is inherited and defined in the table itself as well' end,
         format('alter %s drop constraint %I', owner.name, k.conname)
    from d join pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid and (k.conislocal or k.coninhcount = 0),
    lateral (select case when k.conrelid <> 0 then 'table ' || k.conrelid::regclass else 'domain ' || k.contypid::regtype end as name,
                    case when k.conrelid <> 0 then k.conrelid::regclass::text else 'domain ' || k.contypid::regtype end as named) owner
  union all
  -- triggers, by their WHEN; those of partitions go and come with their parent's
  select 6, d.description,
         array[format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass)],
         pg_get_triggerdef(t.oid)
           || array(select format('alter table only %s %s trigger %I', one.tgrelid::regclass, s.word, one.tgname)
                      from pg_trigger one join state s on s.letter = one.tgenabled
                     where one.tgname = t.tgname and one.tgenabled <> 'O'
                       and one.tgrelid in (select t.tgrelid union all select i.relid from pg_partition_tree(t.tgrelid) i)
                     order by one.tgrelid <> t.tgrelid)
           || array_remove(array[format('comment on trigger %I on %s is %L', t.tgname, t.tgrelid::regclass, obj_description(t.oid, 'pg_trigger'))], null),
         null, null, null
    from d join pg_trigger t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid and t.tgparentid = 0
  union all
  -- policies of row security; while it is loose a policy lets nothing through
  select 7, d.description,
         array[format('alter policy %I on %s%s%s', p.polname, p.polrelid::regclass,
           case when p.polqual is not null then ' using (false)' end, case when p.polwithcheck is not null then ' with check (false)' end)],
         array[format('alter policy %I on %s%s%s', p.polname, p.polrelid::regclass,
           ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')], null, null, null
    from d join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
  union all
  -- everything else
  select 8, d.description, null, null, null,
         case when c.relkind in ('i', 'I') then 'an index needs an immutable function; those of pg_amqp claimed to be, those of pgamqp are not'
              else 'pgamqp does not know how to bring it back' end,
         case when c.relkind in ('i', 'I') then format('drop index %s', c.oid::regclass) else 'drop it, and create it again afterwards' end
    from d left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
   where d.classid not in ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass)
     and not (d.classid = 'pg_proc'::regclass and exists (select from pg_proc p where p.oid = d.objid and p.prokind in ('f', 'p')))
     and not (d.classid = 'pg_type'::regclass and exists (select from pg_type t where t.oid = d.objid and t.typtype = 'd' and t.typdefaultbin is not null)))
select name, case when problem is null then stub end, case when problem is null then restore end,
       coalesce(note, ''), coalesce(problem, ''), coalesce(fix, '')
  from found order by rank, name`

// readDependents returns what was built on functions, in an order that does not vary.
func readDependents(ctx context.Context, tx pgx.Tx, functions []uint32) ([]dependent, error) {
	rows, err := tx.Query(ctx, dependentsQuery, functions)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on the functions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (dependent, error) {
		var d dependent
		return d, row.Scan(&d.Name, &d.Stub, &d.Restore, &d.Note, &d.Problem, &d.Fix)
	})
	if err != nil {
		return nil, fmt.Errorf("look for what depends on the functions: %w", err)
	}
	return all, nil
}
