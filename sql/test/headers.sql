-- Headers that pass are sent as the text of the jsonb.
select no_plan();

create temp table good (headers jsonb);
insert into good values
  ('{}'), ('{"a": 1}'), ('{"a": null, "b": true, "c": -1.5, "d": "x"}'), ('{"": ""}'),
  ('{"CC": ["a", "b"]}'), ('{"BCC": []}'), ('{"cc": "lower case is nothing special"}'), ('{"a": {"CC": "nested is nothing special"}}'),
  ('{"a": {"$int8": -128}}'), ('{"a": {"$uint8": 255}}'), ('{"a": {"$int16": -32768}}'), ('{"a": {"$uint16": 65535}}'),
  ('{"a": {"$int32": 2147483647}}'), ('{"a": {"$uint32": 4294967295}}'), ('{"a": {"$int64": -9223372036854775808}}'),
  ('{"a": {"$int64": 9223372036854775807}}'), ('{"a": {"$float": 3.4028234e38}}'), ('{"a": {"$double": 1.7976931348623157e308}}'), ('{"a": {"$double": 1}}'),
  ('{"a": {"$decimal": "12.34"}}'), ('{"a": {"$decimal": "-2147483648"}}'), ('{"a": {"$decimal": "21474836.47"}}'), ('{"a": {"$decimal": "0.000"}}'),
  ('{"a": {"$timestamp": 0}}'), ('{"a": {"$timestamp": 253402300799}}'), ('{"a": {"$timestamp": "2024-02-29T23:59:59.5+01:30"}}'), ('{"a": {"$timestamp": "1970-01-01T00:00:00Z"}}'),
  (jsonb_build_object('a', jsonb_build_object('$timestamp', now()))), (jsonb_build_object('a', jsonb_build_object('$timestamp', now()::text))),
  ('{"a": {"$timestamp": "2024-02-29 23:59:59.123456+00"}}'), ('{"a": {"$timestamp": "2024-02-29 23:59:59-0330"}}'),
  ('{"a": {"$bytes": ""}}'), ('{"a": {"$bytes": "YQ=="}}'), ('{"a": {"$bytes": "YWI="}}'), ('{"a": {"$bytes": "+/AA"}}'),
  ('{"a": {"$string": "x"}}'), ('{"a": {"$table": {"$int8": {"$int8": 1}}}}'), ('{"a": {"$table": {}}}'), ('{"a": {"$one": 1, "$two": 2}}'), ('{"$top": 1}'),
  ('{"a": [1, "x", null, [2, [3]], {"b": {"c": 1}}]}'), ('{"a": 123456789012345678901234567890}'), ('{"a": 1e308}'), ('{"a": "a [ b { c $ d"}'),
  (jsonb_build_object('a', repeat('x', 100000))), (jsonb_build_object(repeat('k', 255), 1)),
  ((repeat('{"a": ', 16) || '1' || repeat('}', 16))::jsonb), (('{"a": ' || repeat('[', 15) || repeat(']', 15) || '}')::jsonb);

select lives_ok(format($$select amqp.publish(1, 'ex', 'k', 'm', headers => %L)$$, g.headers), 'headers ' || left(g.headers::text, 60)) from good g;
select bag_eq($$select m.fields ->> 'h' from t.take() m$$, $$select g.headers::text from good g$$, 'all of them arrive');

-- Arguments of declarations follow the same rules, but CC means nothing there.
select lives_ok($$select amqp.queue_declare(1, 'q', arguments => '{"CC": "x", "x-max-length": {"$int32": 5}}')$$, 'arguments with types');
select t.refuses($$select amqp.queue_declare(1, 'q', arguments => '{"a": {"$int8": 128}}')$$, '22023', 'arguments.a: 128 is not', 'arguments with a bad type');

select * from finish();
