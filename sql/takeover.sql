-- What pg_amqp left behind. Its functions have the names of ours and take varchar, so
-- calls would go on reaching them, or be ambiguous; its table is kept.

do $$
declare
  object record;
begin
  -- Only its own library makes an extension of this name pg_amqp.
  if exists (select from pg_extension e where e.extname = 'amqp')
     and exists (select from pg_depend d join pg_proc p on p.oid = d.objid
                  where d.classid = 'pg_proc'::regclass and d.deptype = 'e'
                    and d.refclassid = 'pg_extension'::regclass
                    and d.refobjid = (select e.oid from pg_extension e where e.extname = 'amqp')
                    and p.probin like E'%pg\\_amqp%') then
    for object in
      select c.oid::regclass as name, case c.relkind when 'S' then 'sequence' else 'table' end as kind
        from pg_depend d join pg_class c on c.oid = d.objid
       where d.classid = 'pg_class'::regclass and d.deptype = 'e'
         and d.refclassid = 'pg_extension'::regclass
         and d.refobjid = (select e.oid from pg_extension e where e.extname = 'amqp')
         and c.relkind in ('r', 'p', 'S')
    loop
      execute format('alter extension amqp drop %s %s', object.kind, object.name);
    end loop;
    -- No CASCADE: what was built on pg_amqp is named in the error, its owner decides.
    drop extension amqp;
  end if;

  -- Functions of a pg_amqp that was installed before there were extensions.
  for object in
    select p.oid::regprocedure as name
      from pg_proc p
     where p.pronamespace = 'amqp'::regnamespace and p.probin like E'%pg\\_amqp%'
  loop
    execute format('drop function %s', object.name);
  end loop;
end
$$;
