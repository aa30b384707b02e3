\echo Use "CREATE EXTENSION amqp" to load this file. \quit
-- What is in schema amqp already becomes part of the extension before the scripts renew it; PostgreSQL would refuse
-- to replace what is not.

set local search_path = pg_catalog, pg_temp; -- so that all names have their schema

do $$
declare
  object record;
  self constant oid := (select e.oid from pg_extension e where e.extname = 'amqp');
begin
  -- Functions of pg_amqp, which the update starts from. No CASCADE: what was built on them is named in the error.
  for object in
    select p.oid::regprocedure as name
      from pg_depend d join pg_proc p on p.oid = d.objid
     where d.classid = 'pg_proc'::regclass and d.deptype = 'e'
       and d.refclassid = 'pg_extension'::regclass and d.refobjid = self
       and p.probin like '%pg\_amqp%'
  loop
    execute format('alter extension amqp drop function %s', object.name);
    execute format('drop function %s', object.name);
  end loop;

  -- What "pgamqp install" has made, or a pg_amqp from before there were extensions. Not what somebody else could have put
  -- there: he would own functions that the extension runs, and the table with the passwords.
  for object in
    select o.kind, o.name, o.owner, r.rolsuper or r.rolname = current_user as trusted
      from (select 'pg_class'::regclass as catalog, c.oid, c.relowner as owner,
                   case c.relkind when 'S' then 'sequence' else 'table' end as kind, c.oid::regclass::text as name
              from pg_class c
             where c.relnamespace = 'amqp'::regnamespace and c.relkind in ('r', 'p', 'S')
            union all
            select 'pg_proc'::regclass, p.oid, p.proowner,
                   'function', p.oid::regprocedure::text
              from pg_proc p
             where p.pronamespace = 'amqp'::regnamespace and p.prokind = 'f' and coalesce(p.probin, '') not like '%pg\_amqp%'
            union all
            select 'pg_type'::regclass, t.oid, t.typowner, 'domain', t.oid::regtype::text
              from pg_type t
             where t.typnamespace = 'amqp'::regnamespace and t.typtype = 'd') o
      join pg_roles r on r.oid = o.owner
     where not exists (select from pg_depend d
                        where d.classid = o.catalog and d.objid = o.oid and d.deptype = 'e')
  loop
    if not object.trusted then
      raise exception '% % is there already and belongs to role %', object.kind, object.name, object.owner::regrole
        using errcode = '42501', hint = format(
          'If you trust what is in schema amqp, make it yours first: alter %s %s owner to %I; and so on.', object.kind, object.name, current_user);
    end if;
    execute format('alter extension amqp add %s %s', object.kind, object.name);
  end loop;
end
$$;
