select no_plan();

insert into amqp.broker (broker_id, host) values (80, 'a');
create table public.s_orders (id int primary key, note text);
create table public.s_parted (id int primary key) partition by range (id);
create table public.s_low partition of public.s_parted for values from (0) to (10);
create table public.s_high partition of public.s_parted for values from (10) to (20);
select format('alter publication %I set (publish_via_partition_root = false)', publication_name) from amqp.installation \gexec
create table public.s_deletes (id int primary key);
select amqp.route_table('public.s_orders', 80, 'cdc') is not null, amqp.route_table('public.s_low', 80, 'cdc') is not null \g /dev/null
select amqp.route_table('public.s_deletes', 80, 'cdc', operations => '{delete}') is not null as done \gset
create view public.s_state as
  select schema_name || '.' || table_name || ' ' || state || ' ' || chunk || ' ' || coalesce(after::text, '-') || ' ' || rows_read
      || case when finished_at is null then '' else ' finished' end || coalesce(' ' || error, '') as s, snapshot_id from amqp.snapshot;
select count(*) from t.take() \g /dev/null

select amqp.snapshot('public.s_orders') as orders \gset
select is((select string_agg(kind, '') from t.take()), 's', 'the daemon is told');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 0 - 0', 'it begins at the start');
select t.refuses($$select amqp.snapshot('public.s_orders')$$, '55006', 'is under way', 'two of a table');
select t.refuses($$select amqp.snapshot('public.missing')$$, '22023', 'no table', 'a missing table');
select t.refuses($$select amqp.snapshot('public.s_deletes')$$, '22023', 'takes insertions', 'a table whose route takes no insertions');
select t.refuses($$select amqp.snapshot('amqp.*')$$, '22023', 'no table', 'our own tables');
select is((select count(*) from amqp.snapshot('public.s_parted')), 1::bigint, 'a partitioned table');
select is((select table_name from amqp.snapshot order by snapshot_id desc limit 1), 's_low', 'is the partitions that are published and have routes');
select is(amqp.snapshot_cancel((select max(snapshot_id) from amqp.snapshot)), true, 'it is canceled');

-- The daemon's part.
select count(*) from t.take() \g /dev/null
select is(amqp._snapshot_chunk(:orders, 0, null, '{10}', 7, false, 'token', null, -1), true, 'a chunk has its place');
select is((select array[kind, transactional::text, convert_from(body, 'UTF8')::jsonb::text] from t.take()),
  array['w', 'false', jsonb_build_object('snapshot', :orders, 'chunk', 0, 'schema', 'public', 'table', 's_orders', 'after', null, 'rows', 7, 'end', false, 'token', 'token', 'moved', null)::text],
  'which tells where it began');
select is(amqp._snapshot_chunk(:orders, 0, null, '{11}', 7, false, 'token', null, -1), false, 'once');
select is(amqp._snapshot_chunk(:orders, 1, '{10}', null, 0, true, 'token', null, -1), true, 'an empty one moves nothing');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 2 {10} 7', 'the state after two');
select lives_ok(format('select amqp._snapshot_done(%s, 1)', :orders), 'an end that was set back');
select is((select state from amqp.snapshot where snapshot_id = :orders), 'running', 'is none');
select lives_ok(format('select amqp._snapshot_fails(%s, %L, false)', :orders, 'why'), 'it does not go on');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 2 {10} 7 why', 'and says why');
select lives_ok(format('select amqp._snapshot_done(%s, 2)', :orders), 'the end');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders done 2 {10} 7 finished', 'is one');
select is(amqp._snapshot_back(:orders, 2, '{x}', 0), false, 'a chunk that is not placed yet, as it was read again');
select is(amqp._snapshot_back(:orders, 0, null, 7), true, 'the first chunk again');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 0 - 0', 'makes it run again');
select is(amqp._snapshot_back(:orders, 1, '{x}', 0), false, 'it is before that already');

select is(amqp.snapshot_pause(:orders), true, 'it is paused');
select is(amqp.snapshot_pause(:orders), false, 'once');
select is(amqp._snapshot_chunk(:orders, 0, null, '{10}', 7, false, 'token', null, -1), false, 'and takes no chunk then');
select is(amqp.snapshot_resume(:orders), true, 'it goes on');
select is(amqp.snapshot_resume(:orders), false, 'once, too');
select lives_ok(format('select amqp._snapshot_fails(%s, %L, true)', :orders, 'no'), 'it fails');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders failed 0 - 0 finished no', 'for good');
select is(amqp.snapshot_resume(:orders), true, 'until somebody has it go on');
select is(amqp.snapshot_cancel(:orders), true, 'it is canceled, too');
select is(amqp.snapshot_cancel(:orders), false, 'which is the end');
select is(amqp._snapshot_back(:orders, 0, null, 0), false, 'and not undone by the daemon');

-- Rows that must be read once more.
select amqp.snapshot('public.s_orders') as orders \gset
select is(amqp._snapshot_moved(:orders), 1::bigint, 'a row moves');
select is(amqp._snapshot_moved(:orders), 2::bigint, 'another one');
select is(amqp._snapshot_chunk(:orders, 0, null, '{10}', 7, true, 'token', '[["1"]]', 1), true, 'a chunk that has the first');
select is((select moved from amqp.snapshot where snapshot_id = :orders), 2::bigint, 'takes no newer note away');
select lives_ok(format('select amqp._snapshot_done(%s, 1)', :orders), 'an end without the other one');
select is((select state from amqp.snapshot where snapshot_id = :orders), 'running', 'is none');
select is(amqp._snapshot_chunk(:orders, 1, '{10}', null, 1, false, 'token', '[["2"]]', 2), true, 'a chunk that has both');
select is((select moved from amqp.snapshot where snapshot_id = :orders), -2::bigint, 'takes it away');
select is((select count(*) from amqp._snapshots_begin() b where snapshot_id = :orders), 1::bigint, 'a daemon begins');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 2 {10} 8', 'and goes on where it was');
select is(amqp._snapshot_moved(:orders), 3::bigint, 'a row moves before the daemon ends');
select is((select after from amqp._snapshots_begin() b where snapshot_id = :orders), null, 'the next one');
select is((select s from public.s_state where snapshot_id = :orders), 'public.s_orders running 0 - 0', 'begins again');
select is(amqp.snapshot_cancel(:orders), true, 'the end of it');
select is(amqp._snapshot_moved(:orders), null, 'nothing is noted of it any more');
select is((select table_oid from amqp.snapshot where snapshot_id = :orders), 's_orders'::regclass::oid, 'it is of one table');

-- What is expected.
create table public.s_root (id int primary key) partition by range (id);
create table public.s_root_1 partition of public.s_root for values from (0) to (100);
create table public.s_root_2 partition of public.s_root for values from (100) to (200);
insert into public.s_root select generate_series(50, 109);
analyze public.s_root_1;
select format('alter publication %I set (publish_via_partition_root = true)', publication_name) from amqp.installation \gexec
select amqp.route_table('public.s_root', 80, 'cdc') is not null as done \gset
select amqp.snapshot('public.s_root') as root \gset
select is((select rows_expected from amqp.snapshot where snapshot_id = :root), 0::bigint, 'a partition that was never analyzed');
select is(amqp.snapshot_cancel(:root), true, 'canceled');
analyze public.s_root_2;
select amqp.snapshot('public.s_root') as root \gset
select is((select rows_expected from amqp.snapshot where snapshot_id = :root), 60::bigint, 'the sum of all partitions');
select is(amqp.snapshot_cancel(:root), true, 'canceled, too');
select format('alter publication %I set (publish_via_partition_root = false)', publication_name) from amqp.installation \gexec

create role s_other;
grant usage on schema amqp to s_other;
grant execute on function amqp.snapshot to s_other;
set session authorization s_other;
select throws_ok($$select amqp.snapshot('public.s_orders')$$, '42501', null, 'the table of another role');
reset session authorization;
select * from finish();
