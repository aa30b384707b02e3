select no_plan();

insert into amqp.broker (broker_id, host) values (80, 'a');
create table public.t_orders (id int primary key, note text);
create table public.t_bare (n int);
create table public.t_full (n int);
alter table public.t_full replica identity full;
create table public."T odd.name" (id int primary key);
create unlogged table public.t_unlogged (id int primary key);
create view public.t_published as
  select t.tablename::text collate "default" from pg_publication_tables t join amqp.installation i on i.publication_name = t.pubname order by 1;
select count(*) from t.take() \g /dev/null

select amqp.route_table('public.t_orders', 80, 'cdc') as orders \gset
select is((select array[schema_name, table_name, routing_key, format, numeric_as, bytea_as, operations::text] from amqp.route where route_id = :orders),
  array['public', 't_orders', '{schema}.{table}.{op}', 'json', 'string', 'base64', '{insert,update,delete,truncate}'], 'a route for a table');
select is((select array_agg(array[kind, broker_id::text, transactional::text, tags, encode(body, 'hex')]) from t.take()), array[array['r', '0', 'true', '', '']], 'the daemon is told');
select results_eq('select * from public.t_published', array['t_orders'], 'the table is published');
select is((select array[jsonb_array_length(routes)::text, routes -> 0 ->> 'table_name', committed::text] from amqp.route_version), array['1', 't_orders', null], 'the version has all routes');

select amqp.route_table('public.t_f*', 80, 'all', operations => '{insert}') is not null as done \gset
select t.refuses($$select amqp.route_table('public.t_bare', 80, 'cdc')$$, '55000', 'no replica identity', 'a table that could not be updated any more');
create table public.t_parted (n int) partition by range (n);
create table public.t_parted_1 partition of public.t_parted for values from (0) to (10);
alter table public.t_parted replica identity full;
select t.refuses($$select amqp.route_table('public.t_parted', 80, 'cdc')$$, '55000', 'public.t_parted_1 has no replica identity', 'a partition that could not be updated any more');
alter table public.t_parted_1 add primary key (n);
select t.refuses($$select amqp.route_table('public.t_parted', 80, 'cdc')$$, '55000', 'public.t_parted_1 is not that of its table public.t_parted', 'a partition of another identity');
begin;
select format('alter publication %I set (publish_via_partition_root = false)', publication_name) from amqp.installation \gexec
select lives_ok($$select amqp.route_table('public.t_parted', 80, 'cdc')$$, 'which does not matter under its own name');
rollback;
drop table public.t_parted;
select t.refuses($$select amqp.route_table('public.t\_*', 80, 'cdc')$$, '22023', 'no table like', 'a backslash is no escape');
select t.refuses($$select amqp.route_table('public.missing', 80, 'cdc')$$, '22023', 'no table "public.missing"', 'a missing table');
select t.refuses($$select amqp.route_table('t_orders', 80, 'cdc')$$, '22023', 'no table "t_orders"', 'a table without its schema');
select t.refuses($$select amqp.route_table('public.t_unlogged', 80, 'cdc')$$, '22023', 'no table like', 'an unlogged table');
select t.refuses($$select amqp.route_table('pg_catalog.pg_class', 80, 'cdc')$$, '22023', 'no table like', 'a system table');
select t.refuses($$select amqp.route_table('amqp.broker', 80, 'cdc')$$, '22023', 'no table like', 'one of our own');
select t.refuses($$select amqp.route_table('public.t_orders', 81, 'cdc')$$, '22023', 'broker 81 is not in amqp.broker', 'a missing broker');
select throws_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', routing_key => '{wrong}')$$, '23514', null, 'an unknown place in the key');
select throws_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', routing_key => 'a}b')$$, '23514', null, 'half a place');
select throws_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', format => 'xml')$$, '23514', null, 'an unknown format');
select throws_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', operations => '{}')$$, '23514', null, 'no operations');
select throws_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', operations => '{select}')$$, '23514', null, 'an unknown operation');
select lives_ok($$select amqp.route_table('public.t_orders', 80, 'cdc', routing_key => '{op}.{column.note}.{schema}{table}')$$, 'all places');
select lives_ok($$select amqp.route_table('public."T odd.name"', 80, 'cdc')$$, 'a table with an odd name');

-- The role that calls must own the table.
create role t_other;
grant usage on schema amqp to t_other;
grant execute on function amqp.route_table to t_other;
set session authorization t_other;
select throws_ok($$select amqp.route_table('public.t_full', 80, 'cdc')$$, '42501', null, 'the table of another role');
reset session authorization;
alter table public.t_full owner to t_other;
grant usage, create on schema public to t_other;
set session authorization t_other;
select lives_ok($$select amqp.route_table('public.t_full', 80, 'cdc')$$, 'its own table');
reset session authorization;

begin isolation level repeatable read;
select throws_ok($$insert into amqp.route (broker_id, exchange, schema_name, table_name) values (80, 'x', 'a', 'b')$$, '25001', null, 'a snapshot that may lack the routes of others');
rollback;

select count(*) from t.take() \g /dev/null
delete from amqp.route where table_name = 't_f*';
select is(amqp.unroute(:orders), true, 'a route is ended');
select is(amqp.unroute(:orders), false, 'once');
select is((select string_agg(kind, '') from t.take()), 'rr', 'each change is told');
select results_eq('select * from public.t_published', array['T odd.name', 't_full', 't_orders'], 'a table with another route stays published');
create table public.t_by_hand (id int primary key);
select format('alter publication %I add table public.t_by_hand', publication_name) from amqp.installation \gexec
select amqp.unroute(route_id) from amqp.route \g /dev/null
select results_eq('select * from public.t_published', array['t_by_hand'], 'a table that somebody else has published stays, too');
drop table public.t_by_hand;
select is_empty('select * from public.t_published', 'one without does not');

-- What the daemon does.
select is((select count(*) from amqp._route_versions()), (select count(*) from amqp.route_version), 'all versions are read');
select amqp._route_version_committed((select min(announced) from amqp.route_version), '0/77') \g /dev/null
select is((select committed::text from amqp.route_version order by announced limit 1), '0/77', 'where a change was committed is noted');
update amqp.route_version set system_id = system_id + 1;
select is((select array_agg(array[announced::text, committed::text, routes::text]) from amqp._route_versions()), array[array['0/1', '0/1', '[]']], 'versions of another system mean nothing here');

-- Messages of other prefixes.
select count(*) from t.take() \g /dev/null
select amqp.route_prefix('app.*', 80, 'cdc') as prefix \gset
select is((select array[message_prefix, schema_name, routing_key, format, operations::text] from amqp.route where route_id = :prefix),
  array['app.*', null, '{prefix}', 'raw', '{message}'], 'a route for a prefix');
select is((select string_agg(kind, '') from t.take()), 'r', 'the daemon is told of it, too');
select t.refuses($$select amqp.route_prefix('amqp', 80, 'cdc')$$, '22023', 'that of amqp.publish', 'our own prefix');
select t.refuses($$select amqp.route_prefix('app', 81, 'cdc')$$, '22023', 'broker 81 is not in amqp.broker', 'a missing broker for a prefix');
select throws_ok($$select amqp.route_prefix('app', 80, 'cdc', '{table}')$$, '23514', null, 'a table in the key for a prefix');
select throws_ok($$insert into amqp.route (broker_id, exchange) values (80, 'cdc')$$, '23514', null, 'a route for nothing');
select throws_ok($$insert into amqp.route (broker_id, exchange, schema_name, table_name, message_prefix) values (80, 'cdc', 'a', 'b', 'c')$$, '23514', null, 'a route for both');
select is(amqp.unroute(:prefix), true, 'it is ended');
select lives_ok(format($$select amqp.route_table('public.t_full', 80, 'cdc', format => %L)$$, f), f) from unnest('{debezium,cloudevents,cloudevents_structured}'::text[]) f;
select throws_ok($$select amqp.route_table('public.t_full', 80, 'cdc', format => 'raw')$$, '23514', null, 'a format for prefixes');

drop view public.t_published;
drop table public.t_orders, public.t_bare, public.t_full, public."T odd.name", public.t_unlogged;
drop owned by t_other;
drop role t_other;
select * from finish();
