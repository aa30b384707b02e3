-- Changes of rows as messages: which tables, where to, in which form.

create table if not exists amqp.route (
  route_id integer generated always as identity primary key,
  broker_id integer not null,
  exchange text not null check (octet_length(exchange) <= 255),
  schema_name text,
  table_name text,
  message_prefix text,
  operations text[] not null default '{insert,update,delete,truncate}',
  routing_key text not null default '{schema}.{table}.{op}',
  format text not null default 'json',
  numeric_as text not null default 'string' check (numeric_as in ('string', 'number')),
  bytea_as text not null default 'base64' check (bytea_as in ('base64', 'hex'))
);
-- What version 3 had otherwise.
do $$
declare
  name text;
  definition text;
begin
  if not exists (select from pg_attribute a where a.attrelid = 'amqp.route'::regclass and a.attname = 'message_prefix') then
    alter table amqp.route add message_prefix text, alter schema_name drop not null, alter table_name drop not null,
      drop constraint route_format_check, drop constraint route_operations_check, drop constraint route_routing_key_check;
  end if;
  for name, definition in values
    ('route_for_tables_or_messages', $c$(schema_name is not null) = (table_name is not null) and (schema_name is null) <> (message_prefix is null)$c$),
    ('route_knows_operations', $c$cardinality(operations) > 0 and case when message_prefix is null
        then operations <@ '{insert,update,delete,truncate}' else operations = '{message}' end$c$),
    ('route_knows_format', $c$case when message_prefix is null
        then format in ('json', 'debezium', 'cloudevents', 'cloudevents_structured') else format = 'raw' end$c$),
    ('route_knows_places', $c$regexp_replace(routing_key, case when message_prefix is null
        then '[{](schema|table|op|column[.][^{}]+)[}]' else '[{]prefix[}]' end, '', 'g') !~ '[{}]'$c$)
  loop
    if not exists (select from pg_constraint c where c.conrelid = 'amqp.route'::regclass and c.conname = name) then
      execute format('alter table amqp.route add constraint %I check (%s)', name, definition);
    end if;
  end loop;
end
$$;
comment on table amqp.route is
  'changes of rows that become messages, one for each route that matches; see amqp.route_table. A table must be in the publication, too';
comment on column amqp.route.schema_name is '* stands for any characters';
comment on column amqp.route.table_name is '* stands for any characters';
comment on column amqp.route.message_prefix is
  'instead of a table: of messages that others write with pg_logical_emit_message; * stands for any characters';
comment on column amqp.route.routing_key is
  'with {schema}, {table}, {op} and {column.NAME}, or {prefix}, whose values are escaped and cut';
comment on column amqp.route.numeric_as is 'string keeps every digit; many readers of JSON round a number';

-- All routes as they are after each change of amqp.route. A change holds for what comes
-- behind its announcement in the stream, also when the stream starts again from before.
create table if not exists amqp.route_version (
  system_id bigint not null,
  announced pg_lsn not null,
  committed pg_lsn,
  routes jsonb not null,
  primary key (system_id, announced)
);
comment on table amqp.route_version is 'kept by a trigger on amqp.route and by the daemon';
comment on column amqp.route_version.committed is
  'where the commit record of the change begins, as the daemon has seen it; NULL until then';

create or replace function amqp._routes_changed() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  system constant bigint := (select c.system_identifier from pg_control_system() c);
  routes jsonb;
begin
  -- Each version has all routes, so whoever comes second must see those of the first. And
  -- the daemon relies on versions being committed in the order in which they are announced.
  perform pg_advisory_xact_lock(123588459164018);
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'amqp.route is changed in a transaction of isolation level %', current_setting('transaction_isolation')
      using errcode = '25001', hint = 'Change it in a transaction of its own, with read committed.';
  end if;
  routes := coalesce((select jsonb_agg(to_jsonb(r) order by r.route_id) from amqp.route r), '[]');
  if routes = coalesce((select v.routes from amqp.route_version v where v.system_id = system order by v.announced desc limit 1), '[]') then
    return null;
  end if;
  insert into amqp.route_version (system_id, announced, routes)
  values (system, amqp._emit(true, amqp._envelope('r', 0, '')), routes);
  -- What no slot of this database can come back to.
  delete from amqp.route_version v
   where v.system_id = system and v.committed < (
     select max(w.committed) from amqp.route_version w
      where w.system_id = system and w.committed < (
        select min(s.confirmed_flush_lsn) from pg_replication_slots s
         where s.database = current_database() and s.plugin = 'pgoutput'));
  return null;
end
$$;
create or replace trigger pgamqp_routes_changed
  after insert or update or delete or truncate on amqp.route
  for each statement execute function amqp._routes_changed();

-- For the daemon. Routes that no version tells of, as in a database that was restored from a
-- dump, hold from the beginning.
create or replace function amqp._route_versions()
returns table (announced pg_lsn, committed pg_lsn, routes jsonb)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with here as (
    select v.announced, v.committed, v.routes from amqp.route_version v, pg_control_system() c
     where v.system_id = c.system_identifier)
  select * from here
  union all
  select '0/1', '0/1', r.routes
    from (select coalesce(jsonb_agg(to_jsonb(r) order by r.route_id), '[]') from amqp.route r) r(routes)
   where not exists (select from here)
   order by 1
$$;

create or replace function amqp._route_version_committed(lsn pg_lsn, at pg_lsn) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  update amqp.route_version v set committed = at from pg_control_system() c
   where v.system_id = c.system_identifier and v.announced = lsn and v.committed is distinct from at
$$;

drop function if exists amqp._has_identity(regclass);
-- By what PostgreSQL says which row was updated or deleted: full, or names of columns. NULL means that it cannot, and refuses
-- UPDATE and DELETE of the table once that is published.
create or replace function amqp._identity(relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case c.relreplident
           when 'f' then 'full'
           else (select '(' || string_agg(quote_ident(a.attname), ', ' order by a.attname) || ')'
                   from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey::smallint[])
                  where i.indrelid = c.oid and i.indisvalid and i.indimmediate
                    and case c.relreplident when 'i' then i.indisreplident when 'd' then i.indisprimary end)
         end
    from pg_class c where c.oid = relation
$$;

-- The identities of a table and of its partitions: each of these has one of its own. cure makes a partition's that of the table.
create or replace function amqp._identities(relation regclass)
returns table (name regclass, identity text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.relid, amqp._identity(p.relid),
         format('alter table %s replica identity %s', p.relid, case root.relreplident
           when 'f' then 'full' when 'd' then 'default' when 'n' then 'nothing'
           else 'using index ' || coalesce((
             select quote_ident(c.relname)
               from pg_index i, pg_partition_tree(i.indexrelid) t join pg_index own on own.indexrelid = t.relid join pg_class c on c.oid = t.relid
              where i.indrelid = relation and i.indisreplident and own.indrelid = p.relid), '...') end)
    from pg_class root,
         (select relation::regclass as relid
          union
          select t.relid from pg_partition_tree(relation) t join pg_class c on c.oid = t.relid where t.isleaf and c.relkind = 'r') p
   where root.oid = relation
   order by 1
$$;

-- A pattern with * as one of LIKE.
create or replace function amqp._like(pattern text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select replace(regexp_replace(pattern, E'([\\\\_%])', E'\\\\\\1', 'g'), '*', '%') $$;

create or replace function amqp.route_table(
  tables text, broker_id integer, exchange text, routing_key text default '{schema}.{table}.{op}',
  format text default 'json', operations text[] default '{insert,update,delete,truncate}',
  numeric_as text default 'string', bytea_as text default 'base64')
returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  publication constant text := (select i.publication_name from amqp.installation i);
  all_tables constant boolean := (select p.puballtables from pg_publication p where p.pubname = publication);
  named constant regclass := case when position('*' in tables) = 0 then to_regclass(tables) end;
  schema_pattern text;
  table_pattern text;
  via_root constant boolean := (select p.pubviaroot from pg_publication p where p.pubname = publication);
  found record;
  problem record;
  number integer := 0;
  id integer;
begin
  perform amqp._check_unlimited('route changes of rows');
  perform amqp._check_broker(broker_id);
  if named is not null then
    select n.nspname, c.relname into schema_pattern, table_pattern
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = named;
  elsif tables like '%.%' and position('*' in tables) > 0 then
    schema_pattern := split_part(tables, '.', 1);
    table_pattern := substr(tables, length(schema_pattern) + 2);
  end if;
  if coalesce(schema_pattern, '') = '' or coalesce(table_pattern, '') = '' then
    perform amqp._refuse(format('there is no table "%s"', tables),
      'Give schema and table, as in ''public.orders'', or a pattern, as in ''public.*''.');
  end if;
  for found in
    select c.oid::regclass as name, c.relkind, c.relreplident, c.relowner,
           exists (select from pg_publication_tables t where t.pubname = publication and t.schemaname = n.nspname and t.tablename = c.relname) as published
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and c.relpersistence = 'p' and (not c.relispartition or c.oid = named)
       and n.nspname not in ('pg_catalog', 'information_schema', 'amqp') and n.nspname not like E'pg\\_%'
       and n.nspname like amqp._like(schema_pattern) and c.relname like amqp._like(table_pattern)
     order by 1
  loop
    number := number + 1;
    if not pg_has_role(session_user, found.relowner, 'usage') then
      raise exception 'table % does not belong to "%"', found.name, session_user
        using errcode = '42501', hint = 'Let its owner call amqp.route_table.';
    end if;
    select string_agg(i.name::text, ', ') as names, string_agg(format('alter table %s replica identity full', i.name), '; ') as cure
      into problem from amqp._identities(found.name) i where i.identity is null;
    if problem.names is not null then
      raise exception 'table % has no replica identity: once it is published, PostgreSQL would refuse every UPDATE and DELETE of it', problem.names
        using errcode = '55000', hint = 'Give it a primary key, or: ' || problem.cure;
    end if;
    -- The WAL has what the partition's identity says, and PostgreSQL describes it by the table's: NULL would stand for what
    -- is not known.
    select string_agg(i.name::text, ', ') as names, string_agg(i.cure, '; ') as cure, bool_and(i.identity = 'full') as full
      into problem from amqp._identities(found.name) i where via_root and i.identity <> amqp._identity(found.name);
    if problem.names is not null then
      raise exception 'the replica identity of % is not that of its table %, under whose name its changes come', problem.names, found.name
        using errcode = '55000', hint = 'Make them the same: ' || problem.cure
          || case when problem.full then format('. Or the other way round: alter table %s replica identity full', found.name) else '' end;
    end if;
    if found.relreplident <> 'f' then
      raise warning 'messages about % will have the old row''s key only', found.name
        using hint = format('For all of the old row: alter table %s replica identity full', found.name);
    end if;
    if found.relkind = 'p' and not via_root then
      raise notice 'changes of % will come under the names of its partitions, which need routes of their own', found.name
        using hint = format('For its own name: alter publication %I set (publish_via_partition_root = true)', publication);
    end if;
    if not found.published and not all_tables then
      execute format('alter publication %I add table only %s', publication, found.name);
    end if;
  end loop;
  if number = 0 then
    perform amqp._refuse(format('there is no table like "%s" that could be published', tables),
      'Only ordinary and partitioned tables can be; not temporary, unlogged, foreign or system tables.');
  end if;
  insert into amqp.route (broker_id, exchange, schema_name, table_name, operations, routing_key, format, numeric_as, bytea_as)
  values (broker_id, exchange, schema_pattern, table_pattern, operations, routing_key, format, numeric_as, bytea_as)
  returning route_id into id;
  return id;
end
$$;
comment on function amqp.route_table(text, integer, text, text, text, text[], text, text) is
  'publishes tables and makes messages of the changes of their rows from now on; returns the route''s id';

create or replace function amqp.route_prefix(prefix text, broker_id integer, exchange text, routing_key text default '{prefix}')
returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  id integer;
begin
  perform amqp._check_unlimited('route messages');
  perform amqp._check_broker(broker_id);
  if coalesce(prefix, '') in ('', 'amqp') then
    perform amqp._refuse('the prefix is empty, or that of amqp.publish', 'Give the prefix that the messages have, or a pattern such as ''app.*''.');
  end if;
  insert into amqp.route (broker_id, exchange, message_prefix, operations, routing_key, format)
  values (broker_id, exchange, prefix, '{message}', routing_key, 'raw')
  returning route_id into id;
  return id;
end
$$;
comment on function amqp.route_prefix(text, integer, text, text) is
  'sends on what others write with pg_logical_emit_message under a prefix; returns the route''s id';

create or replace function amqp.unroute(route_id integer) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  publication constant text := (select i.publication_name from amqp.installation i);
  gone amqp.route;
  found record;
begin
  perform amqp._check_unlimited('end a route');
  delete from amqp.route r where r.route_id = unroute.route_id returning * into gone;
  if gone.route_id is null then
    return false;
  end if;
  -- Its tables need not be published any more unless another route is for them. Tables that
  -- it was not for are not its business: somebody may have published them first.
  for found in
    select format('%I.%I', n.nspname, c.relname) as name
      from pg_publication_rel pr
      join pg_publication p on p.oid = pr.prpubid and p.pubname = publication
      join pg_class c on c.oid = pr.prrelid
      join pg_namespace n on n.oid = c.relnamespace
     where n.nspname like amqp._like(gone.schema_name) and c.relname like amqp._like(gone.table_name)
       and not exists (
       select from amqp.route r
        where n.nspname like amqp._like(r.schema_name) and c.relname like amqp._like(r.table_name))
  loop
    execute format('alter publication %I drop table only %s', publication, found.name);
  end loop;
  return true;
end
$$;
comment on function amqp.unroute(integer) is 'ends a route; returns whether there was one';
