-- Where a role may publish to, if not everywhere. A role without a row here is free to name any broker, exchange and
-- routing key, once it may call the functions at all.

create table if not exists amqp.publish_limit (
  role regrole not null,
  broker_id integer not null,
  exchange text not null default '*',
  routing_key text not null default '*',
  primary key (role, broker_id, exchange, routing_key)
);
comment on table amqp.publish_limit is
  'where to a role, and all that are members of it, may publish; see amqp.grant_publish. * stands for any characters';

-- The limits of the session's user: SET ROLE does not change them, and no owner of a function does. A superuser is a member
-- of every role, and has none.
create or replace function amqp._limits() returns table (broker_id integer, exchange text, routing_key text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select l.broker_id, l.exchange, l.routing_key from amqp.publish_limit l join pg_roles r on r.oid = l.role
   where pg_has_role(session_user, l.role, 'member')
     and not (select s.rolsuper from pg_roles s where s.rolname = session_user)
$$;

-- Each routing key counts as a target, those in the headers CC and BCC too.
create or replace function amqp._check_limits(broker_id integer, exchange text, routing_key text, headers jsonb default null) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  key text;
begin
  if not exists (select from amqp._limits()) then
    return;
  end if;
  for key in
    select coalesce(routing_key, '')
    union all
    select jsonb_array_elements_text(case when jsonb_typeof(headers -> n) = 'array' then headers -> n else '[]' end) from unnest(array['CC', 'BCC']) n
  loop
    if not exists (select from amqp._limits() l
                    where l.broker_id = broker_id and coalesce(exchange, '') like amqp._like(l.exchange) and key like amqp._like(l.routing_key)) then
      raise exception 'role "%" may not publish to exchange "%" of broker % with routing key "%"', session_user, exchange, broker_id, left(key, 60)
        using errcode = '42501', hint = format('Ask for: select amqp.grant_publish(%L, %s, %L, %L);', session_user, broker_id, exchange, left(key, 60));
    end if;
  end loop;
end
$$;

-- Who may publish to some places only may not change where messages go from there.
create or replace function amqp._check_unlimited(what text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from amqp._limits()) then
    raise exception 'role "%" may publish to some places only, and not %', session_user, what
      using errcode = '42501', hint = 'Let a role without limits in amqp.publish_limit do it.';
  end if;
end
$$;

-- The functions that a role needs to publish and to wait.
create or replace function amqp._for_publishers() returns setof regprocedure
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select p.oid::regprocedure from pg_proc p
   where p.pronamespace = 'amqp'::regnamespace and p.proname in ('publish', 'autonomous_publish', 'delivered', 'wait_delivered')
$$;

create or replace function amqp.grant_publish(role regrole, broker_id integer, exchange text default '*', routing_key text default '*') returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  name constant text := (select r.rolname from pg_roles r where r.oid = role);
  signature regprocedure;
  new boolean;
begin
  if name is null or broker_id is null or exchange is null or routing_key is null then
    perform amqp._refuse('an argument is null, or there is no such role', 'Give a role, a broker_id, and patterns in which * stands for any characters.');
  end if;
  insert into amqp.publish_limit (role, broker_id, exchange, routing_key) values (role, broker_id, exchange, routing_key)
  on conflict do nothing;
  new := found;
  execute format('grant usage on schema amqp to %I', name);
  for signature in select * from amqp._for_publishers() loop
    execute format('grant execute on function %s to %I', signature, name);
  end loop;
  return new;
end
$$;
comment on function amqp.grant_publish(regrole, integer, text, text) is
  'lets a role publish to these exchanges and routing keys of a broker, and to what it was granted so before, and nowhere else';

create or replace function amqp.revoke_publish(role regrole, broker_id integer default null, exchange text default null, routing_key text default null)
returns integer
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
  name constant text := (select r.rolname from pg_roles r where r.oid = role);
  signature regprocedure;
  gone integer;
begin
  delete from amqp.publish_limit l
   where l.role = role and (broker_id is null or l.broker_id = broker_id)
     and (exchange is null or l.exchange = exchange) and (routing_key is null or l.routing_key = routing_key);
  get diagnostics gone = row_count;
  -- Without a row a role has no limits: it must not be able to publish by what it was granted here.
  if name is not null and not exists (select from amqp.publish_limit l where l.role = role) then
    for signature in select * from amqp._for_publishers() loop
      execute format('revoke execute on function %s from %I', signature, name);
    end loop;
    if has_function_privilege(name, 'amqp.publish(integer, text, text, text)', 'execute') then
      raise warning 'role "%" may still publish, and everywhere now, by another role that it is a member of', name
        using hint = format('If it should not: revoke pgamqp_publisher from %I;', name);
    end if;
  end if;
  return gone;
end
$$;
comment on function amqp.revoke_publish(regrole, integer, text, text) is
  'takes back what amqp.grant_publish gave, all of it or what is named, and returns how many rows that were';
