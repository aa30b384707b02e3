select no_plan();

create function t.letter(origin text, broker_id integer default 1, reason text default 'unroutable', exchange text default 'ex') returns bigint
language sql as $$
  insert into amqp.dead_letter (origin, lsn, broker_id, kind, reason, exchange, head, body)
  values ($1, '0/1', $2, 'publish', $3, $4,
    '\x0170'::bytea || int4send(coalesce($2, 0)) || int4send((ascii('o') << 24) + octet_length($1)) || convert_to($1, 'UTF8') || '\x00000000',
    convert_to('body of ' || $1, 'UTF8'))
  returning id
$$;

select t.letter('one') as one \gset
select is(amqp.redeliver(:one), true, 'redeliver returns true');
create temp table got as select * from t.take();
select is((select array[transactional::text, kind, tags, fields ->> 'o', convert_from(body, 'UTF8')] from got), array['true', 'p', 'o', 'one', 'body of one'], 'head and body are sent as one message');
select is_empty('table amqp.dead_letter', 'the row is gone');
select is(amqp.redeliver(:one), false, 'redeliver of a letter that is gone is false');
select is(amqp.redeliver(null), false, 'redeliver of NULL is false');
select is_empty('select * from t.take()', 'and sends nothing');

select t.letter('two') as two \gset
begin;
select amqp.redeliver(:two) \g /dev/null
rollback;
select is((select count(*) from amqp.dead_letter), 1::bigint, 'after a rollback the row is there');
select is_empty('select * from t.take()', 'and the message is not sent');
delete from amqp.dead_letter;

select t.letter('a', 1, 'unroutable', 'ex1'), t.letter('b', 1, 'not_found', 'ex1'), t.letter('c', 2, 'unroutable', 'ex2'), t.letter('d', null, 'undecodable', null) \g /dev/null
select is(amqp.redeliver_all(broker_id => 3), 0::bigint, 'no letter for that broker');
select is(amqp.redeliver_all(1, 'not_found', 'ex2'), 0::bigint, 'every argument must match');
select is(amqp.redeliver_all(reason => 'not_found'), 1::bigint, 'by reason');
select is(t.body(), 'body of b', 'the one with that reason');
select is(amqp.redeliver_all(exchange => 'ex2'), 1::bigint, 'by exchange');
select is(t.body(), 'body of c', 'the one for that exchange');
select is(amqp.redeliver_all(1), 1::bigint, 'by broker');
select is(t.body(), 'body of a', 'the one for that broker');
select t.letter('e'), t.letter('f') \g /dev/null
select is(amqp.redeliver_all(max_messages => 0), 0::bigint, 'none if none are wanted');
select is(amqp.redeliver_all(max_messages => 2), 2::bigint, 'at most so many');
select is(t.body(), 'body of d,body of e', 'the oldest first');
select is(amqp.redeliver_all(), 1::bigint, 'all that is left');
select is(amqp.redeliver_all(), 0::bigint, 'nothing left');

-- Whoever may write into the WAL can write nothing at all, and that is a dead letter as it is.
insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('empty', '0/1', 'unknown', 'undecodable', '', '');
select t.letter('g') \g /dev/null
select is(amqp.redeliver_all(), 2::bigint, 'one with nothing in it is sent again like the others');
select pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) from amqp.installation \g /dev/null
insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('empty', '0/1', 'unknown', 'undecodable', '', '');
select is(amqp.redeliver(id), true, 'alone, too') from amqp.dead_letter;
insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('signed', '0/1', 'publish', 'forged', '', '\x0270');
select is(amqp.redeliver_all(reason => 'forged'), 0::bigint, 'a wrong signature is not sent again');
select t.refuses(format('select amqp.redeliver(%s)', id), '55000', 'has a signature that is wrong', 'alone neither') from amqp.dead_letter;
delete from amqp.dead_letter;

select * from finish();
