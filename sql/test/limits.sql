-- Where roles may publish to, by amqp.grant_publish.
select no_plan();
insert into amqp.broker (broker_id, host) values (1, 'h'), (2, 'h') on conflict do nothing;

create role t_shop;
create role t_member in role t_shop;
create role t_free in role pgamqp_publisher;
create role t_both in role pgamqp_publisher;

select is(amqp.grant_publish('t_shop', 1, 'shop', 'order.*'), true, 'a grant');
select is(amqp.grant_publish('t_shop', 1, '', 'mail_%'), true, 'another one');
select is(amqp.grant_publish('t_shop', 1, '', 'mail_%'), false, 'twice is once');
select is((select count(*) from amqp.publish_limit), 2::bigint, 'two rows');
select t.refuses($$select amqp.grant_publish('t_shop', null)$$, '22023', 'an argument is null, or there is no such role', 'a grant of nothing');
select throws_ok($$select amqp.grant_publish('t_missing', 1)$$, '42704', null, 'a role that is not there');

set session authorization t_shop;
select lives_ok($$select amqp.publish(1, 'shop', 'order.new', 'm')$$, 'to where it may');
select lives_ok($$select amqp.publish(1, 'shop', 'order.', 'm')$$, '* stands for nothing, too');
select lives_ok($$select amqp.publish(1, '', 'mail_%', 'm')$$, 'the default exchange');
select lives_ok($$select amqp.autonomous_publish(1, 'shop', 'order.a.b', '{}'::jsonb, headers => '{"CC": ["order.copy"], "a": 1}')$$, 'with a copy to where it may');
select lives_ok($$select amqp.delivered('0/1'), amqp.wait_delivered('0/1')$$, 'and waits');
select t.refuses($$select amqp.publish(1, 'shop', 'orders', 'm')$$, '42501', 'role "t_shop" may not publish to exchange "shop" of broker 1 with routing key "orders"', 'another key');
select throws_ok($$select amqp.publish(1, '', 'mail_x', 'm')$$, '42501', null, '% and _ stand for themselves');
select throws_ok($$select amqp.publish(1, '', 'mail.%', 'm')$$, '42501', null, 'both of them');
select throws_ok($$select amqp.publish(1, 'shop2', 'order.new', 'm')$$, '42501', null, 'another exchange');
select throws_ok($$select amqp.publish(1, null, 'order.new', 'm')$$, '42501', null, 'the default exchange, by null');
select throws_ok($$select amqp.publish(2, 'shop', 'order.new', 'm')$$, '42501', null, 'another broker');
select throws_ok($$select amqp.publish(1, 'shop', null, 'm')$$, '42501', null, 'no key');
select throws_ok($$select amqp.autonomous_publish(1, 'shop', 'orders', 'm')$$, '42501', null, 'autonomously');
select throws_ok($$select amqp.publish(1, 'shop', 'orders', 'm'::bytea, 2)$$, '42501', null, 'bytes, with properties');
select throws_ok($$select amqp.publish(1, 'shop', 'orders', '{}'::json)$$, '42501', null, 'json');
select throws_ok($$select amqp.publish(1, 'shop', 'order.new', 'm', headers => '{"CC": ["order.a", "mail"]}')$$, '42501', null, 'a copy elsewhere');
select throws_ok($$select amqp.publish(1, 'shop', 'order.new', 'm', headers => '{"BCC": ["mail"]}')$$, '42501', null, 'a blind copy elsewhere');
select throws_ok($$select amqp.queue_declare(1, 'q')$$, '42501', null, 'no declarations');
select throws_ok($$select * from amqp.publish_limit$$, '42501', null, 'it does not see the limits');
select throws_ok($$insert into amqp.publish_limit values ('t_shop', 2)$$, '42501', null, 'nor change them');
select throws_ok($$select amqp.grant_publish('t_shop', 2)$$, '42501', null, 'in no way');
select throws_ok($$select amqp.revoke_publish('t_shop')$$, '42501', null, 'not that either');
select throws_ok($$select amqp._limits()$$, '42501', null, 'the inner functions are not for it');
reset session authorization;

-- Who may make routes by a grant of the administrator does not get around its limits by them.
grant execute on function amqp.route_prefix, amqp.route_table, amqp.unroute to t_shop;
set session authorization t_shop;
select t.refuses($$select amqp.route_prefix('p', 1, 'elsewhere')$$, '42501', 'role "t_shop" may publish to some places only, and not route messages', 'no routes of prefixes');
select t.refuses($$select amqp.route_table('public.*', 1, 'elsewhere')$$, '42501', 'and not route changes of rows', 'no routes of tables');
select t.refuses($$select amqp.unroute(1)$$, '42501', 'and not end a route', 'and no end of others');
reset session authorization;

grant t_shop to t_member;
set session authorization t_member;
select lives_ok($$select amqp.publish(1, 'shop', 'order.new', 'm')$$, 'a member may what its role may');
select throws_ok($$select amqp.publish(1, 'shop', 'orders', 'm')$$, '42501', null, 'and no more');
set role t_shop;
select throws_ok($$select amqp.publish(1, 'shop', 'orders', 'm')$$, '42501', null, 'under the name of its role, too');
reset role;
reset session authorization;

set session authorization t_free;
select lives_ok($$select amqp.publish(2, 'any', 'key', 'm'), amqp.queue_declare(1, 'q')$$, 'others are free');
select t.refuses($$select amqp.publish(9, 'any', 'key', 'm')$$, '22023', 'broker 9 is not in amqp.broker', 'and get the usual errors');
reset session authorization;
select lives_ok($$select amqp.publish(2, 'any', 'key', 'm')$$, 'a superuser is free');

select amqp.grant_publish('t_both', 2) \g /dev/null
set session authorization t_both;
select lives_ok($$select amqp.publish(2, 'any', 'key', 'm')$$, 'a grant for all of a broker');
select throws_ok($$select amqp.publish(1, 'any', 'key', 'm')$$, '42501', null, 'a limit counts, although pgamqp_publisher has none');
select throws_ok($$select amqp.queue_declare(2, 'q')$$, '42501', null, 'for declarations, too');
reset session authorization;

select is(amqp.revoke_publish('t_shop', 1, 'shop'), 1, 'one grant is taken back');
set session authorization t_shop;
select throws_ok($$select amqp.publish(1, 'shop', 'order.new', 'm')$$, '42501', null, 'and gone');
select lives_ok($$select amqp.publish(1, '', 'mail_%', 'm')$$, 'the other one stays');
reset session authorization;
select is(amqp.revoke_publish('t_shop'), 1, 'the last one');
set session authorization t_shop;
select throws_ok($$select amqp.publish(1, '', 'mail_%', 'm')$$, '42501', 'permission denied for function publish', 'then it may not publish at all');
reset session authorization;
select is(amqp.revoke_publish('t_shop'), 0, 'nothing is left to take');
select is(amqp.revoke_publish('t_both'), 1, 'of the one that is a publisher');

select is(amqp._broker_ids(), '{1,2}', 'without limits calls take the short way again');

select * from finish();
drop owned by t_shop, t_member, t_free, t_both;
drop role t_shop, t_member, t_free, t_both;
