-- Calls as they were written for pg_amqp 0.4.2 run unchanged, and every kind of argument
-- finds its form.
select no_plan();

select ok(amqp.publish(1, 'amqp.direct', 'foo', 'message'), 'four arguments');
select is((select array[fields ->> 'x', fields ->> 'k', convert_from(body, 'UTF8')] from t.take()), array['amqp.direct', 'foo', 'message'], 'and what they mean');
select ok(amqp.publish(1, 'e', 'k', 'm', 1), 'five arguments');
select ok(amqp.publish(1, 'e', 'k', 'm', 1, 'text/plain'), 'six arguments');
select ok(amqp.publish(1, 'e', 'k', 'm', 1, 'text/plain', 'reply'), 'seven arguments');
select ok(amqp.publish(1, 'e', 'k', 'm', 1, 'text/plain', 'reply', 'corr'), 'eight arguments');
select is((select string_agg(fields::text, ' ' order by tags) from t.take()),
  format('{"k": "k", "m": "1", "r": "%1$s", "x": "e"} {"k": "k", "m": "1", "r": "%1$s", "t": "text/plain", "x": "e"} '
         '{"c": "corr", "k": "k", "m": "1", "r": "%1$s", "t": "text/plain", "x": "e", "y": "reply"} '
         '{"k": "k", "m": "1", "r": "%1$s", "t": "text/plain", "x": "e", "y": "reply"}', session_user), 'each argument in its place');
select ok(amqp.publish(broker_id => 1, exchange => 'e', routing_key => 'k', message => 'm'), 'named arguments');
select ok(amqp.publish(broker_id := 1, exchange := 'e', routing_key := 'k', message := 'm', delivery_mode := 2, content_type := 't', reply_to := 'r', correlation_id := 'c'), 'all named arguments');
select ok(amqp.publish(message => 'm', routing_key => 'k', exchange => 'e', broker_id => 1, correlation_id => 'c'), 'named arguments in another order');
select ok(amqp.autonomous_publish(1, 'e', 'k', 'm'), 'autonomous_publish with four');
select ok(amqp.autonomous_publish(1, 'e', 'k', 'm', 2, 'text/plain', 'reply', 'corr'), 'autonomous_publish with eight');
select ok(amqp.exchange_declare(1, 'e', 'direct', false, true), 'exchange_declare with five');
select ok(amqp.exchange_declare(1, 'e', 'direct', false, true, false), 'exchange_declare with six');
select ok(amqp.exchange_declare(broker_id => 1, exchange => 'e'::varchar, exchange_type => 'topic'::varchar, passive => false, durable => true), 'exchange_declare with names');
select lives_ok('select amqp.disconnect(broker_id) from amqp.broker', 'disconnect of every broker');
select lives_ok('do $do$ begin perform amqp.disconnect(1); end $do$', 'disconnect, its result unused as when it had none');
select lives_ok($q$do $do$ declare e varchar := 'e'; k varchar(20) := 'k'; m varchar := 'm'; begin perform amqp.publish(1, e, k, m); perform amqp.publish(1, e, k, m, 2, m, m, m); end $do$$q$, 'varchar variables');
select throws_ok($$select amqp.publish(1, 'e', 'k')$$, '42883', null, 'three arguments are none of the forms');
call t.commit();
select count(*) from t.take() \g /dev/null

-- Overloads, both with four arguments and with more.
create function pg_temp.sent(call text) returns text language plpgsql as $$
declare
  result text;
begin
  execute format('select amqp.publish(%s)', call);
  execute format('select amqp.publish(%s, 2)', call);
  return 'ok';
exception when others then
  return sqlerrm;
end
$$;
select is(pg_temp.sent(call), 'ok', call) from unnest(array[
  $$1, 'e', 'k', 'm'$$, $$1, null, null, null$$, $$1::smallint, 'e', 'k', 'm'$$,
  $$1, 'e'::varchar, 'k'::varchar, 'm'::varchar$$, $$1, 'e'::varchar(9), 'k'::varchar(9), 'm'::varchar(9)$$,
  $$1, 'e'::char(3), 'k'::char(3), 'm'::char(3)$$, $$1, 'e'::name, 'k'::name, 'm'::name$$,
  $$1, 'e'::text, 'k', 'm'$$, $$1, 'e', 'k'::text, 'm'$$, $$1, 'e', 'k', 'm'::text$$, $$1, 'e', 'k'::varchar, 'm'::text$$,
  $$1, 'e', 'k', '\x00'::bytea$$, $$1, 'e', 'k', '{}'::jsonb$$, $$1, 'e', 'k', '{}'::json$$,
  $$1, 'e'::varchar, 'k', '{}'::jsonb$$, $$1, 'e'::amqp.exchange_name, 'k', 'm'$$, $$1, 'e'::information_schema.character_data, 'k', 'm'$$,
  $$1, 'e', 'k', to_jsonb(now())$$, $$1, 'e', 'k', row_to_json(row(1))$$, $$1, 'e', 'k', convert_to('x', 'UTF8')$$, $$1, 'e', 'k', now()::text$$]) call;
select is((select count(*) from t.take()), 42::bigint, 'each call sends one message');
prepare untyped as select amqp.publish($1, $2, $3, $4);
prepare untyped_long as select amqp.publish($1, $2, $3, $4, $5, $6, $7, $8);
execute untyped(1, 'e', 'k', '{"a": 1}') \g /dev/null
execute untyped_long(1, 'e', 'k', '{"a": 1}', 2, 't', 'y', 'c') \g /dev/null
select is((select string_agg(coalesce(fields ->> 't', '-'), ' ') from t.take()), '- t', 'parameters without a type are text');

select * from finish();
