select no_plan();

select ok(amqp.publish(1, 'ex', 'a.key', 'hello'), 'publish returns true');
call t.commit();
create temp table got as select * from t.take();
select is((select count(*) from got), 1::bigint, 'one message in the slot');
select is((select transactional from got), true, 'publish is transactional');
select is((select kind from got), 'p', 'its kind is publish');
select is((select broker_id from got), 1, 'with its broker');
select is((select fields from got), jsonb_build_object('x', 'ex', 'k', 'a.key', 'r', session_user), 'four arguments are exchange, routing key, body; the role is added');
select is((select convert_from(body, 'UTF8') from got), 'hello', 'the body is the text');

select ok(amqp.autonomous_publish(1, 'ex', 'a.key', 'hello'), 'autonomous_publish returns true');
call t.commit();
select is((select transactional from t.take()), false, 'autonomous_publish is not transactional');

-- Transactions.
begin;
select amqp.publish(1, 'ex', 'k', 'rolled back') \g /dev/null
rollback;
begin;
select amqp.publish(1, 'ex', 'k', 'first') \g /dev/null
savepoint s;
select amqp.publish(1, 'ex', 'k', 'in a savepoint') \g /dev/null
rollback to s;
select amqp.publish(1, 'ex', 'k', 'second') \g /dev/null
commit;
select is(t.body(), 'first,second', 'what is rolled back is not sent, the rest in the order of the calls');

begin;
select amqp.autonomous_publish(1, 'ex', 'k', 'stays') \g /dev/null
rollback;
call t.commit();
select is(t.body(), 'stays', 'autonomous_publish survives a rollback');

select amqp.publish(1, 'ex', 'k', n::text) from generate_series(1, 3) n \g /dev/null
select is(t.body(), '1,2,3', 'a call is made for each row');

prepare constant as select amqp.publish(1, 'ex', 'k', 'again');
execute constant \g /dev/null
execute constant \g /dev/null
execute constant \g /dev/null
execute constant \g /dev/null
execute constant \g /dev/null
execute constant \g /dev/null
execute constant \g /dev/null
select is((select count(*) from t.take()), 7::bigint, 'a prepared call with constants sends each time');
select is((select provolatile::text from pg_proc where oid = 'amqp.publish(int, text, text, text)'::regprocedure), 'v', 'publish is volatile');

-- Nothing given.
select amqp.publish(1, null, null, null) \g /dev/null
create temp table nothing as select * from t.take();
select is((select tags from nothing), 'r', 'NULL exchange and routing key are left out');
select is((select body from nothing), ''::bytea, 'a NULL message is an empty body');
select amqp.publish(1, '', '', '', null, '', '', '', '{}', '', null, '', '', '', '', '', null, null) \g /dev/null
select is((select tags from t.take()), 'hr', 'empty strings are left out, an empty object is not');

-- All properties.
select amqp.publish(1, 'ex', 'key', 'm', 1, 'text/plain', 'answers', 'c-1', '{"n": 1}', 'm-1', 9, '60000', 'order.created',
  'shop', 'guest', 'gzip', '2024-05-06 07:08:09.999+00', false) \g /dev/null
create temp table everything as select * from t.take();
select is((select fields from everything), jsonb_build_object('x', 'ex', 'k', 'key', 'm', '1', 't', 'text/plain', 'n', 'gzip', 'y', 'answers',
  'c', 'c-1', 'h', '{"n": 1}', 'i', 'm-1', 'p', '9', 'e', '60000', 'w', 'order.created', 'a', 'shop', 'u', 'guest',
  's', '1714979289', 'f', 'u', 'r', session_user), 'every property arrives');
select is((select tags from everything), 'xkmtnychipewausfr', 'in a fixed order');
select amqp.publish(broker_id => 1, exchange => 'ex', routing_key => 'k', message => 'm', priority => 0, "timestamp" => '1970-01-01 00:00:00+00',
  expiration => '0', delivery_mode => 2, mandatory => true) \g /dev/null
select is((select fields - 'r' from t.take()), '{"x": "ex", "k": "k", "m": "2", "p": "0", "e": "0", "s": "0"}', 'zeros are values');
select amqp.publish(1, 'ex', 'k', 'm', "timestamp" => '9999-12-31 23:59:59.999999+00') \g /dev/null
select is((select fields ->> 's' from t.take()), '253402300799', 'fractions of a second are cut off, the year 9999 passes');

-- Types of the message.
select amqp.publish(1, '', 'q', '\x00ff10'::bytea) \g /dev/null
create temp table binary_body as select * from t.take();
select is((select body from binary_body), '\x00ff10'::bytea, 'bytea arrives as it is');
select is((select fields ->> 't' from binary_body), null, 'bytea has no content type of its own');
select amqp.publish(1, '', 'q', '{"b":1,  "a":2}'::jsonb) \g /dev/null
create temp table json_body as select * from t.take();
select is((select convert_from(body, 'UTF8') from json_body), '{"a": 2, "b": 1}', 'jsonb arrives in the notation of PostgreSQL');
select is((select fields ->> 't' from json_body), 'application/json', 'jsonb has content type application/json');
select amqp.publish(1, '', 'q', '{"b":1,  "a":2}'::json) \g /dev/null
select is((select array[convert_from(body, 'UTF8'), fields ->> 't'] from t.take()), array['{"b":1,  "a":2}', 'application/json'], 'json arrives as it was written');
select amqp.publish(1, '', 'q', 'null'::jsonb, content_type => '') \g /dev/null
select is((select fields ->> 't' from t.take()), 'application/json', 'an empty content type counts as not given');
select amqp.publish(1, '', 'q', '{}'::jsonb, content_type => 'application/cloudevents+json') \g /dev/null
select is((select fields ->> 't' from t.take()), 'application/cloudevents+json', 'a content type that is given wins');
select amqp.publish(1, '', 'q', null::jsonb) \g /dev/null
select is((select body from t.take()), ''::bytea, 'NULL jsonb is an empty body');
select amqp.publish(1, '', 'q', null::json) \g /dev/null
select is((select body from t.take()), ''::bytea, 'NULL json is an empty body');
select amqp.publish(1, '', 'q', null::bytea) \g /dev/null
select is((select body from t.take()), ''::bytea, 'NULL bytea is an empty body');
select amqp.autonomous_publish(1, '', 'q', '\x01'::bytea), amqp.autonomous_publish(1, '', 'q', '2'::jsonb), amqp.autonomous_publish(1, '', 'q', '3'::json),
  amqp.autonomous_publish(1, '', 'q', '\x04'::bytea, 1), amqp.autonomous_publish(1, '', 'q', '5'::jsonb, 1), amqp.autonomous_publish(1, '', 'q', '6'::json, 1),
  amqp.autonomous_publish(1, '', 'q', '7', 1) \g /dev/null
call t.commit();
select is((select string_agg(body::text, ' ') from t.take()), '\x01 \x32 \x33 \x04 \x35 \x36 \x37', 'autonomous_publish has the same forms');

-- Text is UTF-8 whatever the client speaks.
set client_encoding = 'LATIN1';
select amqp.publish(1, U&'caf\00e9', U&'k\00e9y', U&'na\00efve', content_type => U&'t\00e9', headers => jsonb_build_object(U&'h\00e9', U&'v\00e9')) \g /dev/null
reset client_encoding;
create temp table latin as select * from t.take();
select is((select array[fields ->> 'x', fields ->> 'k', fields ->> 't', fields ->> 'h'] from latin), array['café', 'kéy', 'té', '{"hé": "vé"}'], 'properties are UTF-8 with a client in LATIN1');
select is((select body from latin), '\x6e61c3af7665'::bytea, 'and so is the body');
select amqp.publish(1, 'ex', repeat('ä', 127), 'm') \g /dev/null
select is((select fields ->> 'k' from t.take()), repeat('ä', 127), '254 bytes in 127 characters arrive');
select amqp.publish(1, repeat('x', 255), repeat('k', 255), 'm', 2, repeat('t', 255), repeat('y', 255), repeat('c', 255), null, repeat('i', 255), 255,
  '4294967295', repeat('w', 255), repeat('a', 255), repeat('u', 255), repeat('n', 255)) \g /dev/null
select is((select (select min(length(f.value)) || ' ' || count(*) from jsonb_each_text(fields) f where length(f.value) > 100) from t.take()), '255 10', '255 bytes are allowed everywhere');
select amqp.publish(1, 'ex', 'k', repeat('x', 1000000)) \g /dev/null
select is((select length(body) from t.take()), 1000000, 'a megabyte arrives');

-- The size that is compared with the limit is that of the envelope.
begin;
create or replace function amqp._check_size(bytes bigint) returns void language plpgsql as $$
begin
  perform set_config('t.bytes', bytes::text, false);
end
$$;
select amqp.publish(1, 'exchange', 'key', '\x001122'::bytea, 2, 'text/plain', 'answers', 'c-1', '{"needs": ["the", "slow", "check"]}', 'm-1', 9, '60000',
  't', 'app', 'guest', 'gzip', now(), false) \g /dev/null
commit;
select is((select current_setting('t.bytes')::integer - (select sum(4 + octet_length(f.value)) from jsonb_each_text(fields) f) - 10 - length(body) from t.take()),
  0::bigint, 'the size that is checked is the size that is sent');
select ok(pg_get_functiondef(p.oid) ~ 'octet_length\((message|body|coalesce.*)\) > 1000000000', 'the size is looked at: ' || p.oid::regprocedure)
  from pg_proc p where p.pronamespace = 'amqp'::regnamespace and p.proname in ('publish', 'autonomous_publish');

-- The role is the one that logged in.
create role t_writer;
grant pgamqp_publisher to t_writer;
set session authorization t_writer;
select amqp.publish(1, 'ex', 'k', 'm') \g /dev/null
reset session authorization;
select is((select fields ->> 'r' from t.take()), 't_writer', 'the role that logged in is stamped on the message');
set role t_writer;
select amqp.publish(1, 'ex', 'k', 'm', 2) \g /dev/null
reset role;
select is((select fields ->> 'r' from t.take()), session_user::text, 'set role does not change it');

select * from finish();
drop owned by t_writer;
drop role t_writer;
