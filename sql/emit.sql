-- The envelope, for everything but amqp.publish, which builds its own for speed:
--   0x01, kind, broker_id int4, fields, int4 zero, body
-- A field is int4 (tag << 24 | length in bytes) and the value as UTF-8.
-- Functions run in sessions of any standard_conforming_strings: a backslash stands in E'' everywhere.

do $install$
declare
  -- 17 and later can flush what is not part of a transaction; see also amqp._flush_at_end.
  flush constant text := case when current_setting('server_version_num')::integer >= 170000
    then ', not transactional' else '' end;
begin
  execute format($function$
    create or replace function amqp._emit(transactional boolean, content bytea) returns pg_lsn
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $body$
    begin
      -- PostgreSQL up to 15 writes a record that its own decoder cannot read any more; every
      -- logical slot of the database would be stuck at it for ever.
      if octet_length(content) > 1069000000 then
        raise exception 'message is %% bytes long with its properties, the limit is 1069000000', octet_length(content)
          using errcode = '54000', hint = 'Send less, or a reference to where it is.';
      end if;
      return pg_logical_emit_message(transactional, 'amqp', amqp._signed(transactional, content)%s);
    end
    $body$
  $function$, flush);
end
$install$;

-- Up to 16 the WAL writer takes no notice of a message that is outside a transaction: on an
-- idle server it stays in memory for as long as 15 seconds, and is lost in a crash. With a
-- transaction id the end of the transaction is written, and all before it.
create or replace function amqp._flush_at_end() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('server_version_num')::integer < 170000 then
    perform pg_current_xact_id();
  end if;
end
$$;

create or replace function amqp._field(tag text, value text) returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  bytes constant bytea := convert_to(value, 'UTF8');
begin
  if value is null or value = '' then
    return '';
  end if;
  if octet_length(bytes) >= 1 << 24 then
    raise exception 'value of % bytes does not fit into a field of a message', octet_length(bytes)
      using errcode = '54000', hint = 'Send less than 16 MB of headers or arguments.';
  end if;
  return int4send((ascii(tag) << 24) + octet_length(bytes)) || bytes;
end
$$;

create or replace function amqp._envelope(kind text, broker_id integer, fields bytea, body bytea default '')
returns bytea
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select E'\\x01'::bytea || convert_to(kind, 'UTF8') || int4send(broker_id) || fields || E'\\x00000000' || body
$$;

-- The brokers there are, as a constant in the plan of amqp.publish: looking into the table
-- would cost as much as all the rest of that function. STABLE, not IMMUTABLE, so that plans
-- that contain the constant notice when the trigger below replaces it. What is not in the
-- list is looked up in the table. While a role has limits the list is empty, so that every
-- call gets a closer look. It is empty, too, where it was last changed from a snapshot that may be too old for such a limit.
do $$
begin
  if to_regproc('amqp._broker_ids') is null then
    create function amqp._broker_ids() returns integer[] language sql stable as 'select ''{}''::pg_catalog.int4[]';
  end if;
end
$$;

create or replace function amqp._remember_brokers() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  ids integer[];
begin
  -- Two at once could not both replace the function. Whoever comes second reads the table
  -- after the first has committed. (A lock on the table would be a deadlock: both have written to it.)
  perform pg_advisory_xact_lock(123588459164017);
  ids := array(select distinct b.broker_id from amqp.broker b
                where not exists (select from amqp.publish_limit)
                  and current_setting('transaction_isolation') in ('read committed', 'read uncommitted') order by 1);
  if ids <> amqp._broker_ids() then
    execute format('create or replace function amqp._broker_ids() returns integer[] language sql stable as %L',
      format('select %L::pg_catalog.int4[]', ids));
  end if;
end
$$;
select amqp._remember_brokers();

-- The daemon learns of a new, changed or deleted broker in stream order: before the first
-- message that was published after it.
create or replace function amqp._broker_changed() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._remember_brokers();
  perform amqp._emit(true, amqp._envelope('c', 0, ''));
  return null;
end
$$;
create or replace trigger pgamqp_broker_changed
  after insert or update or delete or truncate on amqp.broker
  for each statement execute function amqp._broker_changed();

create or replace function amqp._limits_changed() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._remember_brokers();
  return null;
end
$$;
create or replace trigger pgamqp_limits_changed
  after insert or update or delete or truncate on amqp.publish_limit
  for each statement execute function amqp._limits_changed();

create or replace function amqp.heartbeat(nonce text) returns pg_lsn
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return amqp._emit(true, amqp._envelope('h', 0, '', coalesce(convert_to(nonce, 'UTF8'), '')));
end
$$;
comment on function amqp.heartbeat(text) is 'sends a probe through the whole path; for the daemon';
