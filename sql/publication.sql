-- The publication, which stays empty. Of a partitioned table its rows are told under its own name, as a
-- user of it expects. A transaction of its own, before anything else is
-- written: a slot that meets a row change from a time without its publication is stuck.

do $$
declare
  name text := nullif(pg_catalog.current_setting('pgamqp.publication', true), '');
begin
  if name is null and pg_catalog.to_regclass('amqp.installation') is not null then
    execute 'select i.publication_name from amqp.installation i' into name;
  end if;
  name := coalesce(name, 'pgamqp');
  if not exists (select from pg_catalog.pg_publication p where p.pubname = name) then
    execute pg_catalog.format('create publication %I with (publish_via_partition_root = true)', name);
  end if;
end
$$;
