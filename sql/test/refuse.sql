-- Every argument that a broker would answer by closing the channel is refused, and leaves
-- nothing behind. autonomous_publish is used, as it would send even from a failed statement.
select no_plan();

select t.refuses($$select amqp.autonomous_publish(null, 'ex', 'k', 'm')$$, '22023', 'broker_id is null', 'broker NULL');
select t.refuses($$select amqp.autonomous_publish(7, 'ex', 'k', 'm')$$, '22023', 'broker 7 is not in amqp.broker', 'a broker that is not there');
select t.refuses($$select amqp.autonomous_publish(-1, 'ex', 'k', 'm', 2)$$, '22023', 'broker -1 is not in amqp.broker', 'a broker that is not there, long form');
select t.refuses($$select amqp.publish(7, 'ex', 'k', '{}'::jsonb)$$, '22023', 'broker 7 is not in amqp.broker', 'a broker that is not there, jsonb');

select t.refuses($$select amqp.autonomous_publish(1, repeat('x', 256), 'k', 'm')$$, '22023', 'exchange is 256 bytes long', 'exchange of 256 bytes');
select t.refuses($$select amqp.autonomous_publish(1, 'ex', repeat('x', 256), 'm')$$, '22023', 'routing_key is 256 bytes long', 'routing key of 256 bytes');
select t.refuses($$select amqp.autonomous_publish(1, 'ex', repeat('ä', 128), 'm')$$, '22023', 'routing_key is 256 bytes long', 'routing key of 256 bytes in 128 characters');
select t.refuses($$select amqp.autonomous_publish(1, 'ex', repeat('x', 65536), 'm')$$, '22023', 'routing_key is 65536 bytes long', 'a length that is 0 in its last byte');
select t.refuses($$select amqp.autonomous_publish(1, repeat('x', 256), 'k', 'm', 2)$$, '22023', 'exchange is 256 bytes long', 'exchange of 256 bytes, long form');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', %s => repeat('x', 256))$$, name), '22023', name || ' is 256 bytes long', name || ' of 256 bytes')
  from unnest(array['content_type', 'content_encoding', 'reply_to', 'correlation_id', 'message_id', 'type', 'app_id', 'user_id']) name;
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', '{}'::%s, content_type => repeat('x', 256))$$, type), '22023', 'content_type is 256 bytes long', 'content_type of 256 bytes with ' || type)
  from unnest(array['bytea', 'jsonb', 'json']) type;

select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', %s)$$, mode), '22023', 'delivery_mode is ' || mode, 'delivery mode ' || mode)
  from unnest(array[0, 3, 7, -1]) mode;
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', priority => %s)$$, priority), '22023', 'priority is ' || priority, 'priority ' || priority)
  from unnest(array[-1, 256, 2147483647]) priority;
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', expiration => %L)$$, expiration), '22023', 'expiration is "' || expiration, 'expiration "' || expiration || '"')
  from unnest(array['abc', '-1', '1.5', '1s', ' 1', '4294967296', '9999999999', '00000000001', '١']) expiration;
select t.refuses($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', reply_to => 'amq.rabbitmq.reply-to')$$, '22023', 'reply_to is "amq.rabbitmq.reply-to"', 'direct reply-to');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', "timestamp" => %L)$$, at), '22023', 'timestamp is', 'timestamp ' || at)
  from unnest(array['1969-12-31 23:59:59.999999+00', '10000-01-01 00:00:00+00', 'infinity', '-infinity', '0044-03-15 00:00:00+00 BC']) at;

select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => %L)$$, headers), '22023', 'headers is a JSON ', 'headers ' || headers)
  from unnest(array['[]', '1', '"x"', 'null', 'true', '[{"a": 1}]']) headers;
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => %L)$$, headers), '22023', 'headers', 'headers ' || left(headers, 60))
  from unnest(array[
    '{"CC": "key"}', '{"BCC": "key"}', '{"CC": [1]}', '{"BCC": ["a", null]}', '{"CC": {"a": 1}}', '{"CC": null}',
    '{"a": {"$int9": 1}}', '{"a": {"$": 1}}', '{"a": [{"b": {"$x": {}}}]}',
    '{"a": {"$int8": 128}}', '{"a": {"$int8": -129}}', '{"a": {"$int8": 1.0}}', '{"a": {"$int8": "1"}}', '{"a": {"$int8": null}}',
    '{"a": {"$uint8": -1}}', '{"a": {"$uint8": 256}}', '{"a": {"$int16": 32768}}', '{"a": {"$int16": -32769}}', '{"a": {"$uint16": 65536}}',
    '{"a": {"$int32": 2147483648}}', '{"a": {"$int32": -2147483649}}', '{"a": {"$uint32": 4294967296}}', '{"a": {"$uint32": -1}}',
    '{"a": {"$int64": 9223372036854775808}}', '{"a": {"$int64": -9223372036854775809}}',
    '{"a": {"$float": "NaN"}}', '{"a": {"$float": 1e39}}', '{"a": {"$double": "NaN"}}', '{"a": {"$double": "Infinity"}}', '{"a": {"$double": 1e309}}',
    '{"a": {"$decimal": 12.34}}', '{"a": {"$decimal": "12,34"}}', '{"a": {"$decimal": "21474836.48"}}', '{"a": {"$decimal": "1."}}', '{"a": {"$decimal": ""}}', '{"a": {"$decimal": "+1"}}',
    '{"a": {"$timestamp": -1}}', '{"a": {"$timestamp": 253402300800}}', '{"a": {"$timestamp": 1.5}}', '{"a": {"$timestamp": "yesterday"}}',
    '{"a": {"$timestamp": "2024-02-30T00:00:00Z"}}', '{"a": {"$timestamp": "2024-01-01T00:00:00"}}', '{"a": {"$timestamp": "1969-12-31T23:59:59Z"}}', '{"a": {"$timestamp": null}}',
    '{"a": {"$timestamp": "2024-01-01_00:00:00Z"}}', '{"a": {"$timestamp": "2024-01-01T24:00:00Z"}}', '{"a": {"$timestamp": "2024-01-01T00:00:00+16"}}',
    '{"a": {"$bytes": "%"}}', '{"a": {"$bytes": "YQ"}}', '{"a": {"$bytes": 1}}', '{"a": {"$bytes": "YQ==\n"}}',
    '{"a": {"$string": 1}}', '{"a": {"$string": {}}}', '{"a": {"$table": []}}', '{"a": {"$table": null}}', '{"a": {"$table": {"b": {"$int8": 500}}}}',
    '{"a": 1e309}', '{"a": [-1e309]}']) headers;
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => '{"%s": 1}')$$, repeat('k', 256)), '22023', 'a key in headers is 256 bytes long', 'header key of 256 bytes');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => '{"a": {"%s": 1, "b": 2}}')$$, repeat('ä', 128)), '22023', 'a key in headers.a is 256 bytes long', 'nested header key of 256 bytes');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => %L)$$, '{"a": ' || repeat('[', 16) || repeat(']', 16) || '}'), '22023', 'nested deeper than 16', 'seventeen levels of lists');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => %L)$$, repeat('{"a": ', 17) || '1' || repeat('}', 17)), '22023', 'nested deeper than 16', 'seventeen levels of objects');
select t.refuses(format($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => %L)$$, '{"a": ' || repeat('{"$table": {"a": ', 16) || '1' || repeat('}}', 16) || '}'), '22023', 'nested deeper than 16', 'seventeen levels of $table');
select t.refuses($$select amqp.autonomous_publish(1, 'ex', 'k', 'm', headers => jsonb_build_object('a', repeat('x', 16777216)))$$, '54000', 'headers is 16777225 bytes long', 'headers of 16 MB');

select t.refuses($$select amqp._check_size(1069000001)$$, '54000', 'message is 1069000001 bytes long with its properties, the limit is 1069000000', 'more than PostgreSQL could read again');
select lives_ok($$select amqp._check_size(1069000000)$$, 'no more than that');

call t.commit();
select is_empty('select * from t.take()', 'nothing of all that was sent');

-- A refused call fails its whole statement and transaction.
begin;
select amqp.publish(1, 'ex', 'k', 'before') \g /dev/null
\set ON_ERROR_STOP 0
\o /dev/null
select amqp.publish(1, 'ex', 'k', 'bad', 7);
\o
\set ON_ERROR_STOP 1
commit;
select is_empty('select * from t.take()', 'what came before it in the transaction is not sent');

-- The refusals show what was given, shortened.
select t.refuses($$select amqp.publish(1, repeat('long-', 60), 'k', 'm')$$, '22023', '"long-long-long-long-long-long-long-long-..."', 'a long value is shortened in the message');
select t.refuses($$select amqp.publish(1, 'ex', 'k', 'm', headers => '{"outer": {"inner": [0, {"$int8": 300}]}}')$$, '22023', 'headers.outer.inner[1]: 300 is not', 'the place of a bad header is named');

select * from finish();
