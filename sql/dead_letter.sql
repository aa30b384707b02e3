-- Sending again what could not be delivered. The row goes and the message comes in one
-- transaction: either both happen or none.

create or replace function amqp.redeliver(id bigint) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  letter record;
begin
  delete from amqp.dead_letter d where d.id = id returning d.head, d.body into letter;
  if not found then
    return false;
  end if;
  if substr(letter.head || substr(letter.body, 1, 1), 1, 1) = E'\\x02' then
    raise exception 'dead letter % has a signature that is wrong, and is not sent again', id
      using errcode = '55000', hint = 'Look at it with "pgamqp dead-letters show", and delete it.';
  end if;
  perform amqp._emit(true, letter.head || letter.body);
  return true;
end
$$;
comment on function amqp.redeliver(bigint) is 'sends a dead letter again and removes it; false when there is none with this id';

create or replace function amqp.redeliver_all(
  broker_id integer default null, reason text default null, exchange text default null, max_messages bigint default null)
returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  letter record;
  sent bigint := 0;
begin
  -- In the order of the first failure. Only ids: bodies may be large. A row that another
  -- session is about to send is left to that session.
  for letter in
    select d.id from amqp.dead_letter d
     where (broker_id is null or d.broker_id = broker_id)
       -- Who sends forged messages again signs them: only if they are meant, and not those with a wrong signature.
       and (case when reason is null then d.reason <> 'forged' else d.reason = reason end)
       and substr(d.head || substr(d.body, 1, 1), 1, 1) <> E'\\x02' -- there may be no byte at all
       and (exchange is null or d.exchange = exchange)
     order by d.id limit max_messages
       for update skip locked
  loop
    if amqp.redeliver(letter.id) then
      sent := sent + 1;
    end if;
  end loop;
  return sent;
end
$$;
comment on function amqp.redeliver_all(integer, text, text, bigint) is
  'sends dead letters again, all or those that match every argument that is not NULL; returns how many';
