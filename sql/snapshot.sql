-- Snapshots: the rows that a table has already, as messages between those of its changes.

create table if not exists amqp.snapshot (
  snapshot_id integer generated always as identity primary key,
  schema_name text not null,
  table_name text not null,
  state text not null default 'running' check (state in ('running', 'paused', 'done', 'failed', 'canceled')),
  chunk bigint not null default 0,
  after text[],
  rows_read bigint not null default 0,
  rows_expected bigint not null,
  error text,
  requested_at timestamptz not null default now(),
  finished_at timestamptz
);
alter table amqp.snapshot add column if not exists table_oid oid;
alter table amqp.snapshot add column if not exists moved bigint not null default 0;
create unique index if not exists snapshot_one_at_a_time on amqp.snapshot (schema_name, table_name)
  where state in ('running', 'paused');
comment on table amqp.snapshot is 'rows that tables had already, as messages; see amqp.snapshot(text)';
comment on column amqp.snapshot.chunk is 'how many parts of the table were read';
comment on column amqp.snapshot.after is 'where the next part begins: behind the row with this key, or at this ctid';
comment on column amqp.snapshot.rows_expected is 'as the planner estimates; 0 if it does not know';
comment on column amqp.snapshot.table_oid is 'the table that had the name when the snapshot was asked for';
comment on column amqp.snapshot.moved is
  'above 0 while the daemon knows rows that it must read once more, as their keys were changed; without it the snapshot begins again';
comment on column amqp.snapshot.error is 'why it does not go on, or why it has failed';

create or replace function amqp.snapshot(tables text) returns setof integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  publication constant text := (select i.publication_name from amqp.installation i);
  named constant regclass := case when position('*' in tables) = 0 then to_regclass(tables) end;
  schema_pattern constant text := split_part(tables, '.', 1);
  table_pattern constant text := substr(tables, length(schema_pattern) + 2);
  found record;
  id integer;
begin
  for found in
    select n.nspname, c.relname, c.oid, c.oid::regclass as name, c.relowner,
           case when c.relkind <> 'p' then greatest(c.reltuples, 0)
             else (select case when bool_and(p.reltuples >= 0) then sum(p.reltuples) end
                     from pg_partition_tree(c.oid) l join pg_class p on p.oid = l.relid where l.isleaf) end::bigint as expected
      from pg_publication_tables t
      join pg_namespace n on n.nspname = t.schemaname
      join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
     where t.pubname = publication and n.nspname <> 'amqp'
       and case when position('*' in tables) = 0
             then c.oid = named or named in (select a.relid from pg_partition_ancestors(c.oid) a(relid))
             else n.nspname like amqp._like(schema_pattern) and c.relname like amqp._like(table_pattern) end
       and exists (select from amqp.route r
                    where n.nspname like amqp._like(r.schema_name) and c.relname like amqp._like(r.table_name)
                      and 'insert' = any (r.operations))
     order by 1, 2
  loop
    if not pg_has_role(session_user, found.relowner, 'usage') then
      raise exception 'table % does not belong to "%"', found.name, session_user
        using errcode = '42501', hint = 'Let its owner call amqp.snapshot.';
    end if;
    insert into amqp.snapshot (schema_name, table_name, table_oid, rows_expected)
    values (found.nspname, found.relname, found.oid, coalesce(found.expected, 0))
    on conflict do nothing returning snapshot_id into id;
    if id is null then
      raise exception 'a snapshot of % is under way', found.name
        using errcode = '55006', hint = 'Wait for it, or end it with amqp.snapshot_cancel; see amqp.snapshot.';
    end if;
    return next id;
  end loop;
  if id is null then
    perform amqp._refuse(format('no table "%s" is published and has a route that takes insertions', tables),
      'Give schema and table, as in ''public.orders'', or a pattern, as in ''public.*''; see amqp.route_table.');
  end if;
  perform amqp._emit(true, amqp._envelope('s', 0, ''));
end
$$;
comment on function amqp.snapshot(text) is
  'sends the rows that tables have already, as messages of operation read; returns ids of rows of amqp.snapshot';

create or replace function amqp._snapshot_state(id integer, from_states text[], new_state text) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  update amqp.snapshot s set state = new_state, error = null,
         finished_at = case when new_state = 'canceled' then now() end
   where s.snapshot_id = id and s.state = any (from_states);
  if not found then
    return false;
  end if;
  perform amqp._emit(true, amqp._envelope('s', 0, ''));
  return true;
end
$$;

create or replace function amqp.snapshot_pause(snapshot_id integer) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select amqp._snapshot_state(snapshot_id, '{running}', 'paused') $$;
comment on function amqp.snapshot_pause(integer) is 'stops a snapshot until amqp.snapshot_resume; returns whether it was running';

create or replace function amqp.snapshot_resume(snapshot_id integer) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select amqp._snapshot_state(snapshot_id, '{paused,failed}', 'running') $$;
comment on function amqp.snapshot_resume(integer) is 'goes on with a snapshot that is paused or has failed; returns whether it was';

create or replace function amqp.snapshot_cancel(snapshot_id integer) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ select amqp._snapshot_state(snapshot_id, '{running,paused,failed}', 'canceled') $$;
comment on function amqp.snapshot_cancel(integer) is 'ends a snapshot; returns whether it was not over yet';

-- What is left is for the daemon. A chunk is announced outside of the transaction, and is in the
-- stream even if the transaction is not: whoever meets it without its rows sets the
-- snapshot back.
drop function if exists amqp._snapshot_chunk(integer, bigint, text[], text[], bigint, boolean, text); -- of version 4
create or replace function amqp._snapshot_chunk(
  id integer, this_chunk bigint, first text[], last text[], number_of_rows bigint, reaches_end boolean, token text, keys jsonb, mark bigint)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  found_schema text;
  found_table text;
begin
  update amqp.snapshot s
     set chunk = this_chunk + 1, after = coalesce(last, s.after), rows_read = s.rows_read + number_of_rows, error = null,
         moved = case when s.moved = mark then -mark else s.moved end
   where s.snapshot_id = id and s.chunk = this_chunk and s.state = 'running'
  returning s.schema_name, s.table_name into found_schema, found_table;
  if not found then
    return false;
  end if;
  perform amqp._emit(false, amqp._envelope('w', 0, '', convert_to(jsonb_build_object(
    'snapshot', id, 'chunk', this_chunk, 'schema', found_schema, 'table', found_table, 'after', first, 'rows', number_of_rows, 'end', reaches_end, 'token', token,
    'moved', keys)::text, 'UTF8')));
  return true;
end
$$;

create or replace function amqp._snapshot_back(id integer, to_chunk bigint, first text[], number_of_rows bigint) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update amqp.snapshot s
     set chunk = to_chunk, after = first, rows_read = greatest(s.rows_read - number_of_rows, 0), finished_at = null,
         state = case s.state when 'done' then 'running' else s.state end
   where s.snapshot_id = id and s.chunk > to_chunk and s.state <> 'canceled';
  return found;
end
$$;

-- Notes that the daemon knows a row that it must read once more, and returns the number of the note, or nothing
-- if that is of no use. _snapshot_chunk takes the note away with the chunk that has all such rows, unless there is a
-- newer one.
create or replace function amqp._snapshot_moved(id integer) returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  update amqp.snapshot s set moved = abs(s.moved) + 1
   where s.snapshot_id = id and s.state <> 'canceled'
  returning s.moved
$$;

-- Begins again with snapshots if what a daemon knew of them went with it. Returns those that are not over.
create or replace function amqp._snapshots_begin() returns setof amqp.snapshot
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update amqp.snapshot s set chunk = 0, after = null, rows_read = 0, moved = -s.moved
   where s.moved > 0 and s.state in ('running', 'paused', 'failed');
  return query select * from amqp.snapshot s where s.state in ('running', 'paused', 'failed');
end
$$;

create or replace function amqp._snapshot_done(id integer, chunks bigint) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  update amqp.snapshot s set state = 'done', error = null, finished_at = now()
   where s.snapshot_id = id and s.state = 'running' and s.chunk = chunks and s.moved <= 0
$$;

create or replace function amqp._snapshot_fails(id integer, why text, final boolean) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  update amqp.snapshot s
     set error = why, state = case when final then 'failed' else s.state end, finished_at = case when final then now() end
   where s.snapshot_id = id and s.state = 'running' and (final or s.error is distinct from why)
$$;
