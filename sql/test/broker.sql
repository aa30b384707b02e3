select no_plan();

select setval('amqp.broker_broker_id_seq', 60) \g /dev/null
insert into amqp.broker (host) values ('second') returning broker_id as second \gset
select is((select array[port::text, vhost, username, password, tls::text, on_reject, retry_timeout::text] from amqp.broker where host = 'second'),
  array['5672', null, null, null, 'false', 'dead_letter', null], 'defaults of a broker');
select is((select array_agg(array[kind, broker_id::text, transactional::text, tags, encode(body, 'hex')]) from t.take()), array[array['c', '0', 'true', '', '']], 'an insert tells the daemon');
update amqp.broker set password = 'p' where host = 'second';
select is((select string_agg(kind, '') from t.take()), 'c', 'an update tells the daemon');
update amqp.broker set on_reject = 'hold' where host = 'second';
select is((select string_agg(kind, '') from t.take()), 'c', 'so does one of what becomes of rejected messages');
select lives_ok($$update amqp.broker set on_reject = 'drop', retry_timeout = '0' where host = 'second'$$, 'no retry at all');
select lives_ok($$update amqp.broker set on_reject = 'dead_letter', retry_timeout = '2 months' where host = 'second'$$, 'or for long');
select throws_ok($$update amqp.broker set on_reject = 'ignore' where host = 'second'$$, '23514', null, 'on_reject is one of three');
select throws_ok($$update amqp.broker set on_reject = null where host = 'second'$$, '23502', null, 'and never null');
select throws_ok($$update amqp.broker set retry_timeout = '-1 s' where host = 'second'$$, '23514', null, 'retry_timeout is not negative');
select count(*) from t.take() \g /dev/null
insert into amqp.broker (broker_id, host) values (70, 'a'), (70, 'b');
select is((select string_agg(kind, '') from t.take()), 'c', 'one statement is one message');
select lives_ok($$select amqp.publish(70, 'ex', 'k', 'm')$$, 'a new broker can be used');
begin;
insert into amqp.broker (broker_id, host) values (71, 'a');
select lives_ok($$select amqp.publish(71, 'ex', 'k', 'm')$$, 'at once, in its own transaction');
rollback;
select is((select string_agg(kind, '') from t.take()), 'p', 'a rolled back change is not told');
select t.refuses($$select amqp.publish(71, 'ex', 'k', 'm')$$, '22023', 'broker 71 is not in amqp.broker', 'and a rolled back broker is not known');
delete from amqp.broker where broker_id = 70 and host = 'a';
select lives_ok($$select amqp.publish(70, 'ex', 'k', 'm')$$, 'a broker that has lost one of two hosts is known');
delete from amqp.broker where broker_id = 70;
select t.refuses($$select amqp.publish(70, 'ex', 'k', 'm')$$, '22023', 'broker 70 is not in amqp.broker', 'a deleted broker is not known');
select is((select string_agg(kind, '') from t.take()), 'cpc', 'deletes tell the daemon');
update amqp.broker set broker_id = 72 where host = 'second';
select lives_ok($$select amqp.publish(72, 'ex', 'k', 'm')$$, 'a renumbered broker is known by its new number');
select t.refuses(format($$select amqp.publish(%s, 'ex', 'k', 'm')$$, :second), '22023', 'is not in amqp.broker', 'and not by the old one');

-- The list that publish looks at first may be behind: then the table counts.
alter table amqp.broker disable trigger user;
insert into amqp.broker (broker_id, host) values (73, 'a');
alter table amqp.broker enable trigger user;
select lives_ok($$select amqp.publish(73, 'ex', 'k', 'm')$$, 'a broker that came without the trigger is known');

truncate amqp.broker;
select t.refuses($$select amqp.publish(1, 'ex', 'k', 'm')$$, '22023', 'broker 1 is not in amqp.broker', 'truncate takes all brokers');
select is((select string_agg(kind, '') from t.take()), 'cppc', 'and tells the daemon');

select * from finish();
