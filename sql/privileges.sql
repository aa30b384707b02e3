-- Who may do what. These are one-time steps, remembered in amqp.installation.steps when they
-- have succeeded: what an administrator grants or revokes afterwards stays.

set local search_path = pg_catalog, pg_temp; -- this file also runs alone

-- The record of the installation, with the names that the caller has set.
insert into amqp.installation as i (version, slot_name, publication_name)
values (0, coalesce(nullif(current_setting('pgamqp.slot', true), ''), 'pgamqp'),
        coalesce(nullif(current_setting('pgamqp.publication', true), ''), 'pgamqp'))
on conflict (one_row) do update
  set slot_name = coalesce(nullif(current_setting('pgamqp.slot', true), ''), i.slot_name),
      publication_name = coalesce(nullif(current_setting('pgamqp.publication', true), ''), i.publication_name);

do $$
declare
  signature regprocedure;
begin
  -- Of a dump without privileges (pg_dump -x) the record of the steps comes back, and not what they did.
  if (select n.nspacl is null from pg_namespace n where n.nspname = 'amqp') then
    update amqp.installation set steps = '{}' where steps <> '{}';
  end if;
  if not exists (select from amqp.installation i where 'schema 1' = any (i.steps)) then
    revoke all on schema amqp from public;
    revoke all on all tables in schema amqp from public;
    revoke all on all sequences in schema amqp from public;
    update amqp.installation set steps = steps || 'schema 1'::text;
  end if;
  -- PostgreSQL lets everybody call a new function. The inner ones are for nobody at any time: who calls amqp._emit forges.
  for signature in
    select p.oid from pg_proc p
     where p.pronamespace = 'amqp'::regnamespace and p.prokind = 'f'
       and (p.proacl is null or starts_with(p.proname::text, '_') and has_function_privilege('public', p.oid, 'execute'))
  loop
    execute format('revoke all on function %s from public', signature);
  end loop;
end
$$;

-- Anybody who may call pg_logical_emit_message can forge messages, name any broker, and with
-- a single call stop every logical slot of a database up to PostgreSQL 15.
do $$
declare
  emit record;
  owner name := (select r.rolname from pg_proc p join pg_roles r on r.oid = p.proowner
                  where p.oid = 'amqp._emit(boolean, bytea)'::regprocedure);
  superuser boolean := (select r.rolsuper from pg_roles r where r.rolname = owner);
  open boolean := false;
  names constant text := (select string_agg(p.oid::regprocedure::text, ', ' order by p.oid) from pg_proc p
                           where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = 'pg_logical_emit_message');
begin
  -- Once it is closed, who opens it again by a GRANT means it. Without any grant it is as PostgreSQL comes, as in a
  -- database that was restored without privileges.
  if exists (select from amqp.installation i where 'emit 1' = any (i.steps))
     and not exists (select from pg_proc p where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = 'pg_logical_emit_message' and p.proacl is null) then
    return;
  end if;
  for emit in
    select p.oid, p.oid::regprocedure as name from pg_proc p
     where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = 'pg_logical_emit_message'
  loop
    begin
      if not superuser then
        -- The functions of schema amqp run as their owner and need it.
        execute format('grant execute on function %s to %I', emit.name, owner);
      end if;
      if superuser or has_function_privilege(owner, emit.oid, 'execute') then
        execute format('revoke execute on function %s from public', emit.name);
      end if;
    exception when insufficient_privilege then
      null; -- reported below
    end;
    open := open or has_function_privilege('public', emit.oid, 'execute');
  end loop;
  if open then
    raise warning 'every role of this database can still call pg_logical_emit_message: '
      'it can forge messages, and on PostgreSQL 14 and 15 stop replication slots for good'
      using hint = format('As a superuser, if the service has one: %srevoke execute on function %s from public; else let messages be signed: amqp.sign_messages, amqp.require_signatures.',
        case when not superuser then format('grant execute on function %s to %I; ', names, owner) end, names);
  else
    update amqp.installation set steps = array_remove(steps, 'emit 1') || 'emit 1'::text;
  end if;
end
$$;

-- Three roles that need no login, to be granted to those that have one. They belong to the
-- cluster, so another database may have made them already.
do $$
declare
  role name;
  signature regprocedure;
begin
  if exists (select from amqp.installation i where 'roles 1' = any (i.steps)) then
    return;
  end if;
  foreach role in array array['pgamqp_publisher', 'pgamqp_daemon'] loop
    if to_regrole(role::text) is null then
      begin
        execute format('create role %I nologin', role);
      exception
        when duplicate_object or unique_violation then
          null; -- made by another database in the meantime
        when insufficient_privilege then
          raise warning 'role % is not there and "%" may not create it', role, current_user
            using hint = format('Create it (create role %I nologin;) and run "pgamqp install" again, or grant what you need yourself.', role);
          return;
      end;
    end if;
  end loop;

  grant usage on schema amqp to pgamqp_publisher, pgamqp_daemon;
  for signature in
    select p.oid from pg_proc p
     where p.pronamespace = 'amqp'::regnamespace
       and p.proname in ('publish', 'autonomous_publish', 'exchange_declare', 'queue_declare', 'queue_bind',
                         'exchange_bind', 'disconnect', 'delivered', 'wait_delivered')
  loop
    execute format('grant execute on function %s to pgamqp_publisher', signature);
  end loop;
  for signature in
    select p.oid from pg_proc p
     where p.pronamespace = 'amqp'::regnamespace
       and p.proname in ('heartbeat', 'redeliver', 'redeliver_all', 'delivered', 'wait_delivered')
  loop
    execute format('grant execute on function %s to pgamqp_daemon', signature);
  end loop;
  grant select on amqp.broker, amqp.installation to pgamqp_daemon;
  grant select, insert, update, delete on amqp.dead_letter to pgamqp_daemon;
  update amqp.installation set steps = steps || 'roles 1'::text;
end
$$;

-- What came with version 3. The roles may be missing, see above.
do $$
begin
  if exists (select from amqp.installation i where 'routes 1' = any (i.steps)) then
    return;
  end if;
  revoke all on amqp.route, amqp.route_version from public;
  revoke all on sequence amqp.route_route_id_seq from public;
  if to_regrole('pgamqp_daemon') is null then
    return;
  end if;
  grant select on amqp.route to pgamqp_daemon;
  grant execute on function amqp._route_versions(), amqp._route_version_committed(pg_lsn, pg_lsn) to pgamqp_daemon;
  update amqp.installation set steps = steps || 'routes 1'::text;
end
$$;

-- What came with version 4.
do $$
begin
  if exists (select from amqp.installation i where 'snapshots 1' = any (i.steps)) then
    return;
  end if;
  revoke all on amqp.snapshot from public;
  revoke all on sequence amqp.snapshot_snapshot_id_seq from public;
  if to_regrole('pgamqp_daemon') is null then
    return;
  end if;
  grant select on amqp.snapshot to pgamqp_daemon;
  grant execute on function amqp._snapshot_back(integer, bigint, text[], bigint), amqp._snapshot_done(integer, bigint), amqp._snapshot_fails(integer, text, boolean) to pgamqp_daemon;
  update amqp.installation set steps = steps || 'snapshots 1'::text;
end
$$;

-- What came with version 5. The daemon's part in snapshots.
do $$
begin
  if exists (select from amqp.installation i where 'snapshots 2' = any (i.steps)) or to_regrole('pgamqp_daemon') is null then
    return;
  end if;
  grant execute on function amqp._snapshot_chunk(integer, bigint, text[], text[], bigint, boolean, text, jsonb, bigint),
    amqp._snapshot_moved(integer), amqp._snapshots_begin() to pgamqp_daemon;
  update amqp.installation set steps = steps || 'snapshots 2'::text;
end
$$;

-- A monitor sees that there are brokers, dead letters and so on, and neither passwords nor contents of messages or tables.
do $$
begin
  if exists (select from amqp.installation i where 'monitor 1' = any (i.steps)) then
    return;
  end if;
  revoke all on amqp.publish_limit, amqp.signing_key from public;
  revoke all on sequence amqp.signing_key_key_id_seq from public;
  if to_regrole('pgamqp_daemon') is not null then
    grant select on amqp.signing_key to pgamqp_daemon;
  end if;
  if to_regrole('pgamqp_monitor') is null then
    begin
      create role pgamqp_monitor nologin;
    exception
      when duplicate_object or unique_violation then
        null; -- made by another database in the meantime
      when insufficient_privilege then
        raise warning 'role % is not there and "%" may not create it', 'pgamqp_monitor', current_user
          using hint = 'Create it (create role pgamqp_monitor nologin;) and run "pgamqp install" again, or do without.';
        return;
    end;
  end if;
  grant usage on schema amqp to pgamqp_monitor;
  grant select on amqp.installation, amqp.route, amqp.publish_limit to pgamqp_monitor;
  -- Not where it goes on: that is the key of a row. Nor the routing keys of dead letters, which may hold values of columns.
  grant select (snapshot_id, schema_name, table_name, state, chunk, rows_read, rows_expected, error, requested_at, finished_at) on amqp.snapshot to pgamqp_monitor;
  grant select (broker_id, host, port, vhost, username, tls, tls_server_name, auth, on_reject, retry_timeout) on amqp.broker to pgamqp_monitor;
  grant select (id, origin, lsn, broker_id, kind, reason, reply_code, reply_text, message_id, exchange, role, attempts,
                first_failed_at, last_failed_at) on amqp.dead_letter to pgamqp_monitor;
  grant execute on function amqp.delivered(pg_lsn) to pgamqp_monitor;
  update amqp.installation set steps = steps || 'monitor 1'::text;
end
$$;
