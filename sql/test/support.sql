-- What the tests need; run before each of them, in a database with schema amqp, a slot and
-- the extension pgtap. Messages are read from the slot and taken apart here, by code that
-- shares nothing with the code that made them.

\set QUIET 1
\pset format unaligned
\pset tuples_only true
set client_min_messages = warning;

create schema t;
grant usage on schema t to public;

create type t.message as (
  transactional boolean, kind text, broker_id integer, tags text, fields jsonb, body bytea);

create table t.commits (at timestamptz);

create function t.parse(data bytea) returns t.message language plpgsql as $$
declare
  m t.message;
  content constant bytea := substring(data from 20);
  at integer := 7; -- byte 1 of the fields
  tag text;
  length integer;
begin
  if substring(data from 11 for 5) <> convert_to('amqp', 'UTF8') || '\x00' then
    raise 'prefix is not amqp: %', data;
  end if;
  if get_byte(content, 0) <> 1 then
    raise 'version is %', get_byte(content, 0);
  end if;
  m.transactional := get_byte(data, 1) = 1;
  m.kind := chr(get_byte(content, 1));
  m.broker_id := (get_byte(content, 2) << 24) | (get_byte(content, 3) << 16) | (get_byte(content, 4) << 8) | get_byte(content, 5);
  m.tags := '';
  m.fields := '{}';
  while substring(content from at for 4) <> '\x00000000' loop
    tag := chr(get_byte(content, at - 1));
    length := (get_byte(content, at) << 16) | (get_byte(content, at + 1) << 8) | get_byte(content, at + 2);
    m.tags := m.tags || tag;
    m.fields := m.fields || jsonb_build_object(tag, convert_from(substring(content from at + 4 for length), 'UTF8'));
    at := at + 4 + length;
  end loop;
  m.body := substring(content from at + 4);
  return m;
end
$$;

-- Messages that are in the slot, which is empty afterwards. What is outside a transaction
-- reaches the disk with the next commit: call it after t.commit().
create function t.take() returns setof t.message language sql as $$
  select (t.parse(c.data)).*
    from amqp.installation i,
         pg_logical_slot_get_binary_changes(i.slot_name, null, null, 'proto_version', '1',
           'publication_names', i.publication_name, 'messages', 'true') c
   where get_byte(c.data, 0) = ascii('M')
$$;

create procedure t.commit() language plpgsql as $$
begin
  insert into t.commits values (now());
  commit;
end
$$;

create function t.body() returns text language sql as $$
  select string_agg(convert_from(m.body, 'UTF8'), ',') from t.take() m
$$;

-- A statement is refused with this SQLSTATE, a message that contains this text, and a hint.
create function t.refuses(statement text, state text, message text, description text) returns text
language plpgsql as $$
declare
  got_state text;
  got_message text;
  got_hint text;
begin
  begin
    execute statement;
  exception when others then
    get stacked diagnostics got_state = returned_sqlstate, got_message = message_text, got_hint = pg_exception_hint;
  end;
  return ok(got_state = state and strpos(got_message, message) > 0 and got_hint <> '', description)
    || case when got_state = state and strpos(got_message, message) > 0 and got_hint <> '' then ''
            else E'\n' || diag(format('%s: %s (hint: %s)', coalesce(got_state, 'no error'), got_message, got_hint)) end;
end
$$;


insert into amqp.broker (broker_id, host) values (1, 'rabbit.example.com');
call t.commit();
select count(*) from t.take() \g /dev/null
