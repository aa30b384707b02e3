-- Whoever may create schemas can put into one named amqp what is going to run with the rights of who installs: triggers,
-- defaults and views at once, functions whenever they are called. So all of it must belong to who installs, or to a
-- superuser, who needs no trap. Not to the owner of the database: a superuser who comes after him would
-- make him one. It also runs alone, before anything is read from the schema.

do $$
declare
  problem record;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  with inside as ( -- the schema, and what is in it. Functions of pg_amqp are in C, so a superuser made them; they are dropped
    select 'pg_namespace'::regclass as classid, n.oid as objid from pg_namespace n where n.nspname = 'amqp'
    union all
    select d.classid, d.objid from pg_namespace n join pg_depend d on d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid
     where n.nspname = 'amqp'
       and not (d.classid = 'pg_proc'::regclass and exists (select from pg_proc p where p.oid = d.objid and p.probin like E'%pg\\_amqp%'))
  ),
  others as ( -- what belongs to others. That of the first superuser is not listed
    select s.classid, s.objid, r.rolname from pg_shdepend s join pg_roles r on r.oid = s.refobjid
     where s.dbid = (select b.oid from pg_database b where b.datname = current_database())
       and s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and not r.rolsuper and r.rolname <> current_user
  ),
  runs as ( -- triggers, rules, defaults, constraints, policies and indexes of the tables
    select d.classid, d.objid from inside i join pg_class c on i.classid = 'pg_class'::regclass and c.oid = i.objid and c.relkind in ('r', 'p')
      join pg_depend d on d.refclassid = i.classid and d.refobjid = i.objid and d.deptype in ('a', 'i')
     where d.classid in ('pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass,
                         'pg_policy'::regclass, 'pg_class'::regclass)
  )
  select * into problem from (
    select case when i.classid = 'pg_namespace'::regclass then 0 else 1 end as rank, format('%s belongs to role "%s"', case when i.classid = 'pg_namespace'::regclass then 'schema amqp'
                               else o.type || ' ' || o.identity end, x.rolname) as what,
           format('If you know what it is: alter %s %s owner to %I; if not, drop it (drop %s %s cascade). Or do it as role "%s".',
             o.type, o.identity, current_user, o.type, o.identity, x.rolname) as fix
      from inside i join others x on x.classid = i.classid and x.objid = i.objid, pg_identify_object(i.classid, i.objid, 0) o
    union all
    select 2, format('role "%s" may create objects in schema amqp', r.rolname), format('revoke create on schema amqp from %I;', r.rolname)
      from pg_namespace n, aclexplode(n.nspacl) a join pg_roles r on r.oid = a.grantee
     where n.nspname = 'amqp' and a.privilege_type = 'CREATE' and not r.rolsuper and r.rolname <> current_user and r.oid <> n.nspowner
    union all
    select 3, format('%s calls %s %s of role "%s"', pg_describe_object(u.classid, u.objid, 0), f.type, f.identity, x.rolname),
           format('Drop the %s, or, if you know what it does: alter %s %s owner to %I;', o.type, f.type, f.identity, current_user)
      from runs u join pg_depend d on d.classid = u.classid and d.objid = u.objid
                       and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
      join others x on x.classid = d.refclassid and x.objid = d.refobjid,
           pg_identify_object(u.classid, u.objid, 0) o, pg_identify_object(d.refclassid, d.refobjid, 0) f
    ) p order by p.rank, p.what limit 1;
  if problem.what is not null then
    raise exception '%, who could have put a trap there for whoever installs', problem.what using errcode = '42501', hint = problem.fix;
  end if;
end
$$;
