-- The schema, empty. All scripts run in one transaction, in the order that sql.go gives.

set local search_path = pg_catalog, pg_temp; -- what others have put into public is not to be found
set local standard_conforming_strings = on;
set local client_min_messages = warning;
-- The names below are not checked until they are used; bodies are compiled at the end.
select pg_advisory_xact_lock(123588459164016); -- two installations at once would collide

do $$
begin
  if current_setting('server_version_num')::integer < 140000 then
    raise exception 'pgamqp needs PostgreSQL 14 or later, this is %', current_setting('server_version')
      using errcode = '0A000';
  end if;
  -- CREATE SCHEMA IF NOT EXISTS would ask for CREATE on the database even when the schema is there.
  if to_regnamespace('amqp') is null then
    create schema amqp;
  end if;
end
$$;
