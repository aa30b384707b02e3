-- pgbench's tables, of which the history has no key.
select amqp.exchange_declare(1, 'demo', 'topic', false, true),
       amqp.queue_declare(1, 'demo'),
       amqp.queue_bind(1, 'demo', 'demo', '#');
alter table pgbench_history replica identity full;
select amqp.route_table('public.pgbench_*', 1, 'demo');
