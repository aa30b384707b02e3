-- The slot: what has been written to the WAL before it exists is not delivered. A transaction
-- of its own; psql runs it after the schema, pgamqp install does the same with better words
-- for what can go wrong.

do $$
declare
  name pg_catalog.text;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  name := (select i.slot_name from amqp.installation i);
  if not exists (select from pg_replication_slots s where s.slot_name = name) then
    if current_setting('server_version_num')::integer >= 170000 then
      -- A failover slot survives the promotion of a standby that synchronizes slots.
      execute format(
        'select pg_catalog.pg_create_logical_replication_slot(%L, ''pgoutput'', false, false, failover => true)', name);
    else
      perform pg_create_logical_replication_slot(name, 'pgoutput', false, false);
    end if;
  end if;
end
$$;
