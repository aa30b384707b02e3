select no_plan();

select amqp.publish(1, 'ex', 'k', 'm') \g /dev/null
select pg_current_wal_insert_lsn() as after \gset
select is(amqp.delivered(:'after'), false, 'not delivered while nobody has confirmed it');
select is(amqp.delivered(null), false, 'NULL is not delivered');
select count(*) from t.take() \g /dev/null
select is(amqp.delivered(:'after'), true, 'delivered when the slot has moved on');
select is(amqp.wait_delivered(:'after', '0s'), true, 'no wait for what is delivered');
call t.commit();
select is_empty('select * from t.take()', 'and no ping for it');

select is(amqp.wait_delivered('FFFFFFFF/FFFFFFFF', '0s'), false, 'false when the time is up');
call t.commit();
create temp table ping as select * from t.take();
select is((select array[kind, broker_id::text, transactional::text, tags, encode(body, 'hex')] from ping), array['n', '0', 'false', '', ''], 'waiting sends a ping');
select clock_timestamp() as started \gset
select is(amqp.wait_delivered('FFFFFFFF/FFFFFFFF', timeout => '100 ms'), false, 'it waits');
select cmp_ok(clock_timestamp() - :'started'::timestamptz, '>=', interval '100 ms', 'as long as it was told');
select is(amqp.wait_delivered(timeout => '0s') , false, 'the default is now');
select is(amqp.wait_delivered('FFFFFFFF/FFFFFFFF', '-1s'), false, 'a negative time is none');
select t.refuses($$select amqp.wait_delivered(null)$$, '22023', 'lsn is null', 'NULL position');
select t.refuses($$select amqp.wait_delivered(timeout => null)$$, '22023', 'timeout is null', 'NULL timeout');

-- A detached broker has a slot of its own; what it has not confirmed is not delivered.
call t.commit();
select count(*) from t.take() \g /dev/null
select slot_name as slot from amqp.installation \gset
select pg_copy_logical_replication_slot(:'slot', :'slot' || '_broker_1') \g /dev/null
select pg_copy_logical_replication_slot(:'slot', :'slot' || '_broker_x') \g /dev/null
select amqp.publish(1, 'ex', 'k', 'm') \g /dev/null
select pg_current_wal_insert_lsn() as after \gset
select count(*) from t.take() \g /dev/null
select is(amqp.delivered(:'after'), false, 'the slot of a detached broker counts');
select pg_replication_slot_advance(:'slot' || '_broker_1', pg_current_wal_lsn()) \g /dev/null
select is(amqp.delivered(:'after'), true, 'a slot that only looks like one does not');
select pg_drop_replication_slot(:'slot' || '_broker_1'), pg_drop_replication_slot(:'slot' || '_broker_x') \g /dev/null

-- No slot.
begin;
update amqp.installation set slot_name = 'not_there';
select t.refuses($$select amqp.delivered('0/1')$$, '55000', 'replication slot "not_there" is not in this database', 'delivered without a slot');
select t.refuses($$select amqp.wait_delivered('0/1')$$, '55000', 'replication slot "not_there" is not in this database', 'wait_delivered without a slot');
rollback;

-- Heartbeat.
select count(*) from t.take() \g /dev/null
select amqp.heartbeat('nonce 1') as at \gset
select amqp.heartbeat(null) \g /dev/null
create temp table beat as select * from t.take();
select is((select array_agg(array[kind, broker_id::text, transactional::text, tags, convert_from(body, 'UTF8')]) from beat),
  array[array['h', '0', 'true', '', 'nonce 1'], array['h', '0', 'true', '', '']], 'what a heartbeat sends');
select cmp_ok(:'at'::pg_lsn, '<=', pg_current_wal_lsn(), 'it returns its position');

select * from finish();
