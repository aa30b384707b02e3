-- The publication, which stays empty. Of a partitioned table its rows are told under its own name, as a
-- user of it expects. A transaction of its own, before anything else is
-- written: a slot that meets a row change from a time without its publication is stuck.

do $$
declare
  name pg_catalog.text;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  name := nullif(current_setting('pgamqp.publication', true), '');
  if name is null and to_regclass('amqp.installation') is not null then
    execute 'select i.publication_name from amqp.installation i' into name;
  end if;
  name := coalesce(name, 'pgamqp');
  if not exists (select from pg_publication p where p.pubname = name) then
    execute format('create publication %I with (publish_via_partition_root = true)', name);
  end if;
end
$$;
