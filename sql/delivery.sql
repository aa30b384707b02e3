-- Is what was committed up to a position confirmed by the brokers? The slots know: the daemon
-- reports a position only when everything before it is safe.

-- The lowest confirmed position of the slot and of the slots of detached brokers.
create or replace function amqp._confirmed() returns pg_lsn
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  slot constant text := (select i.slot_name from amqp.installation i);
  confirmed pg_lsn;
  present boolean;
begin
  select min(s.confirmed_flush_lsn), coalesce(bool_or(s.slot_name = slot), false)
    into confirmed, present
    from pg_replication_slots s
   where s.database = current_database() and s.slot_type = 'logical'
     and (s.slot_name = slot
          or starts_with(s.slot_name, slot || '_broker_') and substr(s.slot_name, length(slot) + 9) ~ '^[0-9]+$');
  if not present then
    raise exception 'replication slot "%" is not in this database', coalesce(slot, 'pgamqp')
      using errcode = '55000',
            hint = 'Run "pgamqp install"; what was published before the slot is created will not be delivered.';
  end if;
  return confirmed;
end
$$;

create or replace function amqp.delivered(lsn pg_lsn) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(amqp._confirmed() >= lsn, false);
end
$$;
comment on function amqp.delivered(pg_lsn) is 'is all that was committed up to this position confirmed by the brokers?';

create or replace function amqp.wait_delivered(
  lsn pg_lsn default pg_current_wal_insert_lsn(), "timeout" interval default '30s')
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
  start constant timestamptz := clock_timestamp();
  -- Time in which the WAL writer has surely written what was committed before: longer than
  -- three times its delay, which is what synchronous_commit = off is allowed to lose.
  settled constant timestamptz := start + 3.5 * current_setting('wal_writer_delay')::interval;
  waits constant interval := "timeout";
  pause double precision := 0.001;
  remaining double precision;
begin
  if lsn is null or waits is null then
    perform amqp._refuse(format('%s is null', case when lsn is null then 'lsn' else 'timeout' end),
      'Leave the argument out to use its default.');
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise warning 'amqp.wait_delivered does not wait for messages of its own transaction'
      using hint = 'Commit first: they are not sent before.';
  end if;
  if amqp._confirmed() >= lsn then
    return true;
  end if;
  -- Something for the daemon to confirm, else an idle one would report its position
  -- only with the next keepalive.
  perform amqp._emit(false, amqp._envelope('n', 0, ''));
  loop
    remaining := extract(epoch from start + waits - clock_timestamp());
    exit when remaining <= 0;
    perform pg_sleep(least(pause, remaining));
    if amqp._confirmed() >= lsn then
      return true;
    end if;
    -- Up to 16 neither the ping nor what comes last in the WAL need ever be written. What is
    -- not by now is no commit. A position from the future is not reached before its time.
    if clock_timestamp() > settled and lsn <= pg_current_wal_insert_lsn()
       and amqp._confirmed() >= pg_current_wal_flush_lsn() then
      return true;
    end if;
    pause := least(pause * 1.5, 0.1);
  end loop;
  return amqp._confirmed() >= lsn;
end
$$;
comment on function amqp.wait_delivered(pg_lsn, interval) is
  'waits until all that was committed up to this position is confirmed by the brokers; false when the time is up';
