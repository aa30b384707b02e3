-- What roles may do that were granted nothing, or one of the roles.
select no_plan();

create role t_nobody;
create role t_publisher in role pgamqp_publisher;
create role t_daemon in role pgamqp_daemon;
create role t_monitor in role pgamqp_monitor;

select is(has_schema_privilege('t_nobody', 'amqp', 'usage'), false, 'PUBLIC may not use the schema');
select is(has_schema_privilege('t_nobody', 'amqp', 'create'), false, 'PUBLIC may not create in the schema');
select is_empty($$select p.oid::regprocedure from pg_proc p where p.pronamespace = 'amqp'::regnamespace and has_function_privilege('t_nobody', p.oid, 'execute')$$, 'PUBLIC may call none of its functions');
select is_empty($$select c.oid::regclass from pg_class c where c.relnamespace = 'amqp'::regnamespace and c.relkind = 'r'
  and has_table_privilege('t_nobody', c.oid, 'select, insert, update, delete, truncate, references, trigger')$$, 'PUBLIC may touch none of its tables');
select is_empty($$select s.seqrelid::regclass from pg_sequence s join pg_class c on c.oid = s.seqrelid where c.relnamespace = 'amqp'::regnamespace
  and has_sequence_privilege('t_nobody', s.seqrelid, 'usage, select, update')$$, 'nor its sequences');
select is_empty($$select p.oid::regprocedure from pg_proc p where p.proname = 'pg_logical_emit_message' and has_function_privilege('t_nobody', p.oid, 'execute')$$, 'PUBLIC may not write into the WAL by itself');

set role t_nobody;
select throws_ok($$select pg_logical_emit_message(false, 'amqp', 'forged')$$, '42501', null, 'forging a text message');
select throws_ok($$select pg_logical_emit_message(false, 'amqp', '\x00'::bytea)$$, '42501', null, 'forging a binary message');
select throws_ok($$select amqp.publish(1, 'ex', 'k', 'm')$$, '42501', null, 'publishing');
select throws_ok($$select * from amqp.broker$$, '42501', null, 'reading passwords');
select throws_ok($$select * from amqp.dead_letter$$, '42501', null, 'reading dead letters');
reset role;

set role t_publisher;
select lives_ok($$select amqp.publish(1, 'ex', 'k', 'm')$$, 'a publisher publishes');
select lives_ok($$select amqp.publish(1, 'ex', 'k', 'm', headers => '{"a": [{"$int8": 1}]}')$$, 'also with headers that need the slow check');
select lives_ok($$select amqp.autonomous_publish(1, 'ex', 'k', '{}'::jsonb)$$, 'and autonomously');
select lives_ok($$select amqp.exchange_declare(1, 'ex', 'direct', false, true), amqp.queue_declare(1, 'q'), amqp.queue_bind(1, 'q', 'ex'), amqp.exchange_bind(1, 'a', 'b'), amqp.disconnect(1)$$, 'and declares');
select lives_ok($$select amqp.delivered('0/1'), amqp.wait_delivered('0/1')$$, 'and waits');
select t.refuses($$select amqp.publish(9, 'ex', 'k', 'm')$$, '22023', 'broker 9 is not in amqp.broker', 'a publisher gets the same errors');
select throws_ok($$select amqp.redeliver(1)$$, '42501', null, 'a publisher does not redeliver');
select throws_ok($$select amqp.redeliver_all()$$, '42501', null, 'not even all');
select throws_ok($$select amqp.heartbeat('x')$$, '42501', null, 'a publisher sends no heartbeats');
select throws_ok($$select amqp._emit(false, 'forged')$$, '42501', null, 'a publisher does not reach the inner functions');
select throws_ok($$select amqp._remember_brokers()$$, '42501', null, 'none of them');
select throws_ok($$select * from amqp.broker$$, '42501', null, 'a publisher does not read passwords');
select throws_ok($$insert into amqp.broker (host) values ('x')$$, '42501', null, 'a publisher does not add brokers');
select throws_ok($$update amqp.broker set host = 'x'$$, '42501', null, 'nor change them');
select throws_ok($$delete from amqp.broker$$, '42501', null, 'nor delete them');
select throws_ok(format($$%s amqp.route%s$$, s.verb, s.rest), '42501', null, 'nor does it ' || s.verb || ' routes')
  from (values ('select * from', ''), ('insert into', $$ (broker_id, exchange, message_prefix, operations, routing_key, format) values (1, 'x', 'p', '{message}', 'k', 'raw')$$),
               ('update', ' set broker_id = 2'), ('delete from', '')) s(verb, rest);
select throws_ok($$select amqp.route_table('public.*', 1, 'x')$$, '42501', null, 'not by a function');
select throws_ok($$select amqp.route_prefix('p', 1, 'x')$$, '42501', null, 'by none');
select throws_ok($$select amqp.unroute(1)$$, '42501', null, 'of them');
select throws_ok($$select * from amqp.dead_letter$$, '42501', null, 'a publisher does not read dead letters');
select throws_ok($$select * from amqp.signing_key$$, '42501', null, 'nor what signs messages');
select throws_ok($$select amqp.sign_messages(false)$$, '42501', null, 'nor does it end that');
select throws_ok($$select pg_logical_emit_message(false, 'amqp', 'forged')$$, '42501', null, 'a publisher does not forge');
reset role;

set role t_daemon;
select lives_ok($$select * from amqp.broker$$, 'the daemon reads brokers');
select lives_ok($$select * from amqp.installation$$, 'and the installation');
select lives_ok($$insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('o', '0/1', 'publish', 'invalid', '\x01', '\x02') on conflict (origin) do update set attempts = 2$$, 'and writes dead letters');
select lives_ok($$select amqp.redeliver(id) from amqp.dead_letter$$, 'and redelivers them');
select lives_ok($$select amqp.redeliver_all()$$, 'all of them');
select lives_ok($$select amqp.heartbeat('x')$$, 'and sends heartbeats');
select throws_ok($$select amqp.publish(1, 'ex', 'k', 'm')$$, '42501', null, 'the daemon does not publish');
select throws_ok($$update amqp.broker set password = 'x'$$, '42501', null, 'the daemon does not change brokers');
select throws_ok($$update amqp.installation set version = 9$$, '42501', null, 'nor the installation');
reset role;

set role t_monitor;
select lives_ok($$select broker_id, host, port, vhost, username, tls, auth, on_reject from amqp.broker$$, 'a monitor sees brokers');
select lives_ok($$select id, reason, reply_text, exchange, attempts from amqp.dead_letter$$, 'and dead letters');
select lives_ok($$select * from amqp.route, amqp.installation, amqp.publish_limit$$, 'routes, limits');
select lives_ok($$select snapshot_id, schema_name, table_name, state, chunk, rows_read, rows_expected, error, requested_at, finished_at from amqp.snapshot$$, 'and how far snapshots are');
select throws_ok($$select after from amqp.snapshot$$, '42501', null, 'not where they go on, which is the key of a row');
select throws_ok($$select routing_key from amqp.dead_letter$$, '42501', null, 'nor routing keys, which may hold values of columns');
select throws_ok($$select * from amqp.signing_key$$, '42501', null, 'nor the keys that sign');
select lives_ok($$select amqp.delivered('0/1')$$, 'and asks what is delivered');
select throws_ok($$select password from amqp.broker$$, '42501', null, 'a monitor does not read passwords');
select throws_ok($$select tls_key from amqp.broker$$, '42501', null, 'nor keys');
select throws_ok($$select b from amqp.broker b$$, '42501', null, 'nor rows as a whole');
select throws_ok($$select body from amqp.dead_letter$$, '42501', null, 'nor bodies');
select throws_ok($$select head from amqp.dead_letter$$, '42501', null, 'nor envelopes');
select throws_ok($$select headers from amqp.dead_letter$$, '42501', null, 'nor headers');
select throws_ok($$delete from amqp.dead_letter$$, '42501', null, 'it changes nothing');
select throws_ok($$select amqp.publish(1, 'ex', 'k', 'm')$$, '42501', null, 'publishes nothing');
select throws_ok($$select amqp.redeliver_all()$$, '42501', null, 'redelivers nothing');
select throws_ok($$select amqp.wait_delivered('0/1')$$, '42501', null, 'and does not even write a ping');
reset role;

-- Names are names, whatever is in them.
create role "a';--""b%I";
select amqp.grant_publish('"a'';--""b%I"', 1, 'shop') \g /dev/null
set session authorization "a';--""b%I";
select lives_ok($$select amqp.publish(1, 'shop', 'k', 'm'), amqp.autonomous_publish(1, 'shop', 'k', 'm', 2)$$, 'a role with a hostile name publishes');
select t.refuses($$select amqp.publish(1, 'a'';--"b%I', 'k', 'm')$$, '42501', $$role "a';--"b%I" may not publish to exchange "a';--"b%I"$$, 'where it may');
select throws_ok($$select * from amqp.broker$$, '42501', null, 'and no more');
reset session authorization;
select is(amqp.revoke_publish('"a'';--""b%I"'), 1, 'its right is taken back');
set session authorization "a';--""b%I";
select throws_ok($$select amqp.publish(1, 'shop', 'k', 'm')$$, '42501', null, 'and gone');
reset session authorization;
drop owned by "a';--""b%I";
drop role "a';--""b%I";
create schema "a';--""b%I";
create table "a';--""b%I"."a';--""b%I" (id integer primary key);
select lives_ok($$select amqp.route_table('"a'';--""b%I"."a'';--""b%I"', 1, 'shop')$$, 'a table with a hostile name is routed');
select lives_ok($$select amqp.snapshot('"a'';--""b%I"."a'';--""b%I"')$$, 'and read');
select is(amqp.unroute(max(route_id)), true, 'and not any more') from amqp.route;
select is_empty($$select * from pg_publication_tables where tablename like 'a%'$$, 'its table is not published');
drop table "a';--""b%I"."a';--""b%I";

-- Who may write to amqp.broker needs nothing else for the trigger.
grant usage on schema amqp to t_nobody;
grant select, insert, update, delete on amqp.broker to t_nobody;
grant usage on sequence amqp.broker_broker_id_seq to t_nobody;
set role t_nobody;
select lives_ok($$insert into amqp.broker (broker_id, host) values (50, 'x')$$, 'a role with rights on amqp.broker can add one');
select lives_ok($$delete from amqp.broker where broker_id = 50$$, 'and delete it');
reset role;

-- Every function that runs as its owner has a fixed search path.
select is_empty($$select p.oid::regprocedure from pg_proc p where p.pronamespace = 'amqp'::regnamespace and p.prosecdef
  and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)$$, 'SECURITY DEFINER goes with a fixed search path');

select * from finish();
drop owned by t_nobody, t_publisher, t_daemon, t_monitor;
drop role t_nobody, t_publisher, t_daemon, t_monitor;
