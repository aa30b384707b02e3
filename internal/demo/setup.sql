-- Every id that must arrive, inserted in the transaction that publishes it.
create table expected (
  id        bigint primary key,
  broker_id integer not null,
  kind      text not null
);
create sequence message_id cache 1;

select amqp.exchange_declare(b, 'demo', 'topic', false, true),
       amqp.queue_declare(b, 'demo'),
       amqp.queue_bind(b, 'demo', 'demo', '#')
  from generate_series(1, 2) b;
