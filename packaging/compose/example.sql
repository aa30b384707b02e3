-- The broker of the demo and a queue; run again, it changes nothing.
insert into amqp.broker (broker_id, host, username, password) values (1, 'rabbitmq', 'demo', 'demo') on conflict do nothing;
select amqp.queue_declare(1, 'orders');
