select no_plan();

select ok(amqp.exchange_declare(1, 'ex', 'topic', false, true), 'exchange_declare returns true');
call t.commit();
create temp table x as select * from t.take();
select is((select array[kind, broker_id::text, tags, fields ->> 'x', fields ->> 'w', fields ->> 'f', fields ->> 'r', encode(body, 'hex')] from x),
  array['x', '1', 'xwfr', 'ex', 'topic', 'd', session_user::text, ''], 'what exchange_declare sends');
select is((select transactional from x), false, 'it is sent at once');
select amqp.exchange_declare(1, 'ex', 'direct', true, true, true, true, '{"alternate-exchange": "alt"}') \g /dev/null
call t.commit();
select is((select array[tags, fields ->> 'f', fields ->> 'h'] from t.take()), array['xwfhr', 'pdai', '{"alternate-exchange": "alt"}'], 'all its flags and arguments');
select amqp.exchange_declare(1, 'ex', '', true, false), amqp.exchange_declare(1, 'ex', null, true, null, null, null) \g /dev/null
call t.commit();
select is((select string_agg(tags || fields::text, ' ') from t.take()),
  format('xfr{"f": "p", "r": "%1$s", "x": "ex"} xfr{"f": "p", "r": "%1$s", "x": "ex"}', session_user), 'a passive declaration needs no type; NULL flags are false');
select amqp.exchange_declare(1, 'ex', 'fanout', false, false) \g /dev/null
call t.commit();
select is((select tags from t.take()), 'xwr', 'no flags, no field for them');

select ok(amqp.queue_declare(1, 'q'), 'queue_declare returns true');
call t.commit();
select is((select array[kind, tags, fields ->> 'q', fields ->> 'f'] from t.take()), array['q', 'qfr', 'q', 'd'], 'a queue is durable unless told otherwise');
select amqp.queue_declare(1, 'q', true, true, true, '{"x-queue-type": "quorum"}') \g /dev/null
call t.commit();
select is((select array[tags, fields ->> 'f', fields ->> 'h'] from t.take()), array['qfhr', 'pda', '{"x-queue-type": "quorum"}'], 'all flags and arguments of queue_declare');

select ok(amqp.queue_bind(1, 'q', 'ex'), 'queue_bind returns true');
call t.commit();
select is((select kind || tags || fields::text from t.take()), format('bqxr{"q": "q", "r": "%s", "x": "ex"}', session_user), 'what queue_bind sends');
select amqp.queue_bind(1, 'q', 'ex', 'a.#', '{"x-match": "all"}') \g /dev/null
call t.commit();
select is((select array[tags, fields ->> 'k', fields ->> 'h'] from t.take()), array['qxkhr', 'a.#', '{"x-match": "all"}'], 'routing key and arguments of queue_bind');

select ok(amqp.exchange_bind(1, 'to', 'from'), 'exchange_bind returns true');
call t.commit();
select is((select kind || tags || fields::text from t.take()), format('eqxr{"q": "to", "r": "%s", "x": "from"}', session_user), 'what exchange_bind sends');
select amqp.exchange_bind(1, destination => 'to', source => 'from', routing_key => 'k', arguments => '{}') \g /dev/null
call t.commit();
select is((select tags from t.take()), 'qxkhr', 'routing key and arguments of exchange_bind');

select ok(amqp.disconnect(1), 'disconnect returns true');
call t.commit();
select is((select array[kind, broker_id::text, tags, encode(body, 'hex')] from t.take()), array['d', '1', 'r', ''], 'what disconnect sends');

-- Order: what is sent at once comes before the transaction that is still open.
begin;
select amqp.publish(1, 'ex', 'k', 'm') \g /dev/null
select amqp.queue_declare(1, 'q') \g /dev/null
rollback;
begin;
select amqp.queue_declare(1, 'q'), amqp.queue_bind(1, 'q', 'ex') \g /dev/null
select amqp.publish(1, 'ex', 'k', 'm') \g /dev/null
commit;
select is((select string_agg(kind, '') from t.take()), 'qqbp', 'declarations survive a rollback and come in the order of the stream');

select t.refuses(call, '22023', message, call) from (values
  ($$select amqp.exchange_declare(null, 'ex', 'direct', false, true)$$, 'broker_id is null'),
  ($$select amqp.exchange_declare(7, 'ex', 'direct', false, true)$$, 'broker 7 is not in amqp.broker'),
  ($$select amqp.exchange_declare(1, '', 'direct', false, true)$$, 'exchange is empty'),
  ($$select amqp.exchange_declare(1, null, 'direct', false, true)$$, 'exchange is null'),
  ($$select amqp.exchange_declare(1, repeat('x', 256), 'direct', false, true)$$, 'exchange is 256 bytes long'),
  ($$select amqp.exchange_declare(1, 'ex', '', false, true)$$, 'exchange_type is empty'),
  ($$select amqp.exchange_declare(1, 'ex', null, false, true)$$, 'exchange_type is null'),
  ($$select amqp.exchange_declare(1, 'ex', repeat('x', 256), true, true)$$, 'exchange_type is 256 bytes long'),
  ($$select amqp.exchange_declare(1, 'ex', 'direct', false, true, arguments => '[]')$$, 'arguments is a JSON array'),
  ($$select amqp.queue_declare(7, 'q')$$, 'broker 7 is not in amqp.broker'),
  ($$select amqp.queue_declare(1, '')$$, 'queue is empty'),
  ($$select amqp.queue_declare(1, null)$$, 'queue is null'),
  ($$select amqp.queue_declare(1, repeat('x', 256))$$, 'queue is 256 bytes long'),
  ($$select amqp.queue_declare(1, 'q', arguments => '1')$$, 'arguments is a JSON number'),
  ($$select amqp.queue_bind(7, 'q', 'ex')$$, 'broker 7 is not in amqp.broker'),
  ($$select amqp.queue_bind(1, '', 'ex')$$, 'queue is empty'),
  ($$select amqp.queue_bind(1, 'q', '')$$, 'exchange is empty'),
  ($$select amqp.queue_bind(1, 'q', 'ex', repeat('x', 256))$$, 'routing_key is 256 bytes long'),
  ($$select amqp.queue_bind(1, 'q', 'ex', '', '{"a": {"$x": 1}}')$$, 'arguments.a: "$x" is no AMQP type'),
  ($$select amqp.exchange_bind(7, 'to', 'from')$$, 'broker 7 is not in amqp.broker'),
  ($$select amqp.exchange_bind(1, '', 'from')$$, 'destination is empty'),
  ($$select amqp.exchange_bind(1, 'to', null)$$, 'source is null'),
  ($$select amqp.exchange_bind(1, 'to', 'from', repeat('x', 256))$$, 'routing_key is 256 bytes long'),
  ($$select amqp.exchange_bind(1, 'to', 'from', '', '[1]')$$, 'arguments is a JSON array'),
  ($$select amqp.disconnect(null)$$, 'broker_id is null'),
  ($$select amqp.disconnect(7)$$, 'broker 7 is not in amqp.broker')) v(call, message);
-- Arguments have the limits of headers.
select t.refuses(format(call, $$'{"a": '$$ || $$ || repeat('[', 16) || repeat(']', 16) || '}'$$), '22023', 'nested deeper than 16', call || ' with seventeen levels')
  from unnest(array[
    'select amqp.exchange_declare(1, ''ex'', ''direct'', false, true, arguments => (%s)::jsonb)', 'select amqp.queue_declare(1, ''q'', arguments => (%s)::jsonb)',
    'select amqp.queue_bind(1, ''q'', ''ex'', '''', (%s)::jsonb)', 'select amqp.exchange_bind(1, ''to'', ''from'', '''', (%s)::jsonb)']) call;
select t.refuses($$select amqp.queue_declare(1, 'q', arguments => jsonb_build_object(repeat('k', 256), 1))$$, '22023', 'a key in arguments is 256 bytes long', 'key of 256 bytes in arguments');
select t.refuses($$select amqp.queue_declare(1, 'q', arguments => jsonb_build_object('a', repeat('x', 16777216)))$$, '54000', 'arguments is 16777225 bytes long', 'arguments of 16 MB');
call t.commit();
select is_empty('select * from t.take()', 'nothing that was refused was sent');

select * from finish();
