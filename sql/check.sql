-- What a broker would answer by closing the channel, or the daemon could not send, is
-- refused here, where the caller still sees the error and nothing has been sent.

create or replace function amqp._refuse(what text, hint text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = '22023', message = what, hint = hint;
end
$$;

create or replace function amqp._refuse_broker(broker_id integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if broker_id is null then
    perform amqp._refuse('broker_id is null', 'Give the broker_id of a row in amqp.broker.');
  end if;
  perform amqp._refuse(format('broker %s is not in amqp.broker', broker_id),
    format('Add it: insert into amqp.broker (broker_id, host) values (%s, ''rabbit.example.com'');', broker_id));
end
$$;

create or replace function amqp._check_broker(broker_id integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
  if not exists (select from amqp.broker b where b.broker_id = broker_id) then
    perform amqp._refuse_broker(broker_id);
  end if;
end
$$;

create or replace function amqp._check_short(argument text, value text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  bytes constant integer := octet_length(convert_to(value, 'UTF8'));
begin
  if bytes > 255 then
    perform amqp._refuse(
      format('%s is %s bytes long, AMQP allows 255: "%s..."', argument, bytes, left(value, 40)),
      format('Give a shorter %s.', argument));
  end if;
end
$$;

create or replace function amqp._refuse_value(place text, value jsonb, wanted text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._refuse(format('%s: %s is not %s', place, left(value::text, 60), wanted),
    'Plain JSON values need no type; an object like {"$int32": 5} is for a consumer that asks for one.');
end
$$;

-- A whole number between two limits, written without a fraction.
create or replace function amqp._check_integer(place text, value jsonb, kind text, low numeric, high numeric) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(value) <> 'number' or value::text !~ '^-?[0-9]+$' or value::text::numeric not between low and high then
    perform amqp._refuse_value(place, value, format('a whole number from %s to %s, which %s needs', low, high, kind));
  end if;
end
$$;

-- An object with one key that starts with $ says which AMQP type its value has.
create or replace function amqp._check_typed(place text, kind text, value jsonb, depth integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  is_string constant boolean := jsonb_typeof(value) = 'string';
  content constant text := value #>> '{}';
  seconds numeric;
begin
  case kind
  when '$int8' then
    perform amqp._check_integer(place, value, kind, -128, 127);
  when '$uint8' then
    perform amqp._check_integer(place, value, kind, 0, 255);
  when '$int16' then
    perform amqp._check_integer(place, value, kind, -32768, 32767);
  when '$uint16' then
    perform amqp._check_integer(place, value, kind, 0, 65535);
  when '$int32' then
    perform amqp._check_integer(place, value, kind, -2147483648, 2147483647);
  when '$uint32' then
    perform amqp._check_integer(place, value, kind, 0, 4294967295);
  when '$int64' then
    perform amqp._check_integer(place, value, kind, -9223372036854775808, 9223372036854775807);
  when '$float' then
    if jsonb_typeof(value) <> 'number' or abs(value::numeric) > 3.4028234e38 then
      perform amqp._refuse_value(place, value, 'a number that fits into 32 bits, which $float needs');
    end if;
  when '$double' then
    if jsonb_typeof(value) <> 'number' or abs(value::numeric) > 1.7976931348623157e308 then
      perform amqp._refuse_value(place, value, 'a finite number, which $double needs');
    end if;
  when '$decimal' then
    if not is_string or content !~ '^-?[0-9]+([.][0-9]{1,255})?$'
       or replace(content, '.', '')::numeric not between -2147483648 and 2147483647 then
      perform amqp._refuse_value(place, value,
        'a string like "12.34" of at most 255 decimals, whose digits fit into 32 bits, which $decimal needs');
    end if;
  when '$timestamp' then
    -- As ISO 8601 has it, and as PostgreSQL prints a timestamptz.
    if is_string and content ~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?'
                                '(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)$') then
      begin
        seconds := floor(extract(epoch from content::timestamptz));
      exception when data_exception then
        seconds := null; -- the 30th of February
      end;
    elsif jsonb_typeof(value) = 'number' and content ~ '^[0-9]+$' then
      seconds := content::numeric;
    end if;
    if seconds is null or seconds not between 0 and 253402300799 then
      perform amqp._refuse_value(place, value,
        'a time from 1970 to 9999, as seconds or like "2024-05-06T07:08:09Z", which $timestamp needs');
    end if;
  when '$bytes' then
    if not is_string or content !~ '^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$' then
      perform amqp._refuse_value(place, value, 'a string in base64 with padding and without line breaks, which $bytes needs');
    end if;
  when '$string' then
    if not is_string then
      perform amqp._refuse_value(place, value, 'a string, which $string needs');
    end if;
  when '$table' then
    if jsonb_typeof(value) <> 'object' then
      perform amqp._refuse_value(place, value, 'an object, which $table needs');
    end if;
    perform amqp._check_table(place, value, depth);
  else
    perform amqp._refuse(format('%s: "%s" is no AMQP type', place, left(kind, 60)),
      'To send an object whose only key starts with $, write it as {"$table": {...}}.');
  end case;
end
$$;

create or replace function amqp._check_value(place text, value jsonb, depth integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  element record;
  key text;
begin
  case jsonb_typeof(value)
  when 'number' then
    if abs(value::numeric) > 1.7976931348623157e308 then
      perform amqp._refuse_value(place, value, 'a number that a double can hold');
    end if;
  when 'object' then
    if (select count(*) from (select from jsonb_object_keys(value) limit 2) k) = 1 then
      key := (select k from jsonb_object_keys(value) k);
      if key like '$%' then
        perform amqp._check_typed(place, key, value -> key, depth);
        return;
      end if;
    end if;
    perform amqp._check_table(place, value, depth);
  when 'array' then
    perform amqp._check_depth(place, depth);
    for element in select e.value, e.ordinality from jsonb_array_elements(value) with ordinality e loop
      perform amqp._check_value(format('%s[%s]', place, element.ordinality - 1), element.value, depth + 1);
    end loop;
  else
    null;
  end case;
end
$$;

create or replace function amqp._check_depth(place text, depth integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if depth > 16 then
    perform amqp._refuse(format('%s... is nested deeper than 16 levels', left(place, 60)), 'Send nested data in the body.');
  end if;
end
$$;

create or replace function amqp._check_table(place text, value jsonb, depth integer) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  field record;
begin
  perform amqp._check_depth(place, depth);
  for field in select e.key, e.value from jsonb_each(value) e loop
    perform amqp._check_short(format('a key in %s', place), field.key);
    perform amqp._check_value(format('%s.%s', place, left(field.key, 60)), field.value, depth + 1);
  end loop;
end
$$;

-- Headers of a message or arguments of a declaration, the outermost object being level 1.
create or replace function amqp._check_headers(argument text, value jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if value is null then
    return;
  end if;
  if jsonb_typeof(value) <> 'object' then
    perform amqp._refuse(format('%s is a JSON %s, not an object', argument, jsonb_typeof(value)), 'Give an object: {"name": value}.');
  end if;
  perform amqp._check_table(argument, value, 1);
  if octet_length(convert_to(value::text, 'UTF8')) >= 1 << 24 then
    raise exception '% is % bytes long as JSON, the limit is 16 MB', argument, octet_length(convert_to(value::text, 'UTF8'))
      using errcode = '54000', hint = 'Send large data in the body.';
  end if;
end
$$;

-- CC and BCC name further routing keys; RabbitMQ closes the channel when they are no lists.
create or replace function amqp._check_copies(headers jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  name text;
begin
  foreach name in array array['CC', 'BCC'] loop
    if headers ? name and (jsonb_typeof(headers -> name) <> 'array'
         or exists (select from jsonb_array_elements(headers -> name) e where jsonb_typeof(e) <> 'string')) then
      perform amqp._refuse(format('headers: %s is %s, not a list of strings', name, left((headers -> name)::text, 60)),
        format('Give a list of routing keys: {"%s": ["key"]}.', name));
    end if;
  end loop;
end
$$;
