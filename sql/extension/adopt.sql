-- What is in schema amqp already becomes part of the extension before the scripts renew it; PostgreSQL would refuse
-- to replace what is not. Whose it is was looked at before.

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
       and p.probin like E'%pg\\_amqp%'
  loop
    execute format('alter extension amqp drop function %s', object.name);
    execute format('drop function %s', object.name);
  end loop;

  -- What "pgamqp install" has made, or a pg_amqp from before there were extensions.
  for object in
    select o.kind, o.name
      from (select 'pg_class'::regclass as catalog, c.oid,
                   case c.relkind when 'S' then 'sequence' else 'table' end as kind, c.oid::regclass::text as name
              from pg_class c
             where c.relnamespace = 'amqp'::regnamespace and c.relkind in ('r', 'p', 'S')
            union all
            select 'pg_proc'::regclass, p.oid, 'function', p.oid::regprocedure::text
              from pg_proc p
             where p.pronamespace = 'amqp'::regnamespace and p.prokind = 'f' and coalesce(p.probin, '') not like E'%pg\\_amqp%'
            union all
            select 'pg_type'::regclass, t.oid, 'domain', t.oid::regtype::text
              from pg_type t
             where t.typnamespace = 'amqp'::regnamespace and t.typtype = 'd') o
     where not exists (select from pg_depend d
                        where d.classid = o.catalog and d.objid = o.oid and d.deptype = 'e')
  loop
    execute format('alter extension amqp add %s %s', object.kind, object.name);
  end loop;
end
$$;
