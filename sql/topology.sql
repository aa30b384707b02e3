-- Declarations and bindings. They are sent at once and in stream order with the messages,
-- so that what is published after a declaration finds it done.

create or replace function amqp._declare(kind text, broker_id integer, fields bytea) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._check_broker(broker_id);
  perform amqp._check_unlimited('declare or bind anything');
  perform amqp._emit(false, amqp._envelope(kind, broker_id, fields || amqp._field('r', session_user::text)));
  perform amqp._flush_at_end();
  return true;
end
$$;

create or replace function amqp._require(argument text, value text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(value, '') = '' then
    perform amqp._refuse(format('%s is %s', argument, case when value is null then 'null' else 'empty' end),
      format('Give the name of the %s.', replace(argument, '_', ' ')));
  end if;
  perform amqp._check_short(argument, value);
end
$$;

create or replace function amqp.exchange_declare(
  broker_id integer, exchange text, exchange_type text, passive boolean, durable boolean,
  auto_delete boolean default false, internal boolean default false, arguments jsonb default null)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._require('exchange', exchange);
  -- A passive declaration only asks whether the exchange is there.
  if coalesce(passive, false) then
    perform amqp._check_short('exchange_type', exchange_type);
  else
    perform amqp._require('exchange_type', exchange_type);
  end if;
  perform amqp._check_headers('arguments', arguments);
  return amqp._declare('x', broker_id, amqp._field('x', exchange) || amqp._field('w', exchange_type)
    || amqp._field('f', concat(case when passive then 'p' end, case when durable then 'd' end,
                               case when auto_delete then 'a' end, case when internal then 'i' end))
    || amqp._field('h', arguments::text));
end
$$;
comment on function amqp.exchange_declare(integer, text, text, boolean, boolean, boolean, boolean, jsonb) is
  'creates an exchange unless it is there, at once and not as part of the transaction';

create or replace function amqp.queue_declare(
  broker_id integer, queue text, passive boolean default false, durable boolean default true,
  auto_delete boolean default false, arguments jsonb default null)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._require('queue', queue);
  perform amqp._check_headers('arguments', arguments);
  return amqp._declare('q', broker_id, amqp._field('q', queue)
    || amqp._field('f', concat(case when passive then 'p' end, case when durable then 'd' end,
                               case when auto_delete then 'a' end))
    || amqp._field('h', arguments::text));
end
$$;
comment on function amqp.queue_declare(integer, text, boolean, boolean, boolean, jsonb) is
  'creates a queue unless it is there, at once and not as part of the transaction';

create or replace function amqp.queue_bind(
  broker_id integer, queue text, exchange text, routing_key text default '', arguments jsonb default null)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._require('queue', queue);
  perform amqp._require('exchange', exchange);
  perform amqp._check_short('routing_key', routing_key);
  perform amqp._check_headers('arguments', arguments);
  return amqp._declare('b', broker_id, amqp._field('q', queue) || amqp._field('x', exchange)
    || amqp._field('k', routing_key) || amqp._field('h', arguments::text));
end
$$;
comment on function amqp.queue_bind(integer, text, text, text, jsonb) is
  'lets a queue receive what is published to an exchange, at once and not as part of the transaction';

create or replace function amqp.exchange_bind(
  broker_id integer, destination text, source text, routing_key text default '', arguments jsonb default null)
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._require('destination', destination);
  perform amqp._require('source', source);
  perform amqp._check_short('routing_key', routing_key);
  perform amqp._check_headers('arguments', arguments);
  return amqp._declare('e', broker_id, amqp._field('q', destination) || amqp._field('x', source)
    || amqp._field('k', routing_key) || amqp._field('h', arguments::text));
end
$$;
comment on function amqp.exchange_bind(integer, text, text, text, jsonb) is
  'lets an exchange receive what is published to another, at once and not as part of the transaction';

create or replace function amqp.disconnect(broker_id integer) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return amqp._declare('d', broker_id, '');
end
$$;
comment on function amqp.disconnect(integer) is 'lets the daemon close its connection to a broker and open a new one';
