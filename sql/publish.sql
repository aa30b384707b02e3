-- amqp.publish and amqp.autonomous_publish, each in a short form of four arguments and a
-- long one with all properties. A call is parsed and planned each time it is made, and every
-- default argument in that costs more than building the message; so most calls, which
-- give no properties, get a form that has none.

-- Were the first four arguments of both forms of one type, a call with four would be
-- ambiguous. PostgreSQL prefers text to a domain over text, and otherwise treats them alike.
do $$
begin
  if to_regtype('amqp.exchange_name') is null then
    create domain amqp.exchange_name as text;
  end if;
end
$$;
comment on domain amqp.exchange_name is 'text; tells the long form of amqp.publish from the short one';

-- Finds out what is wrong with arguments that did not pass the quick test; returns when,
-- on a closer look, nothing is.
create or replace function amqp._check_publish(
  exchange text, routing_key text, delivery_mode integer default null, content_type text default null,
  content_encoding text default null, reply_to text default null, correlation_id text default null,
  headers jsonb default null, message_id text default null, priority integer default null,
  expiration text default null, type text default null, app_id text default null, user_id text default null,
  "timestamp" timestamptz default null)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  perform amqp._check_short('exchange', exchange);
  perform amqp._check_short('routing_key', routing_key);
  perform amqp._check_short('content_type', content_type);
  perform amqp._check_short('content_encoding', content_encoding);
  perform amqp._check_short('reply_to', reply_to);
  perform amqp._check_short('correlation_id', correlation_id);
  perform amqp._check_short('message_id', message_id);
  perform amqp._check_short('type', type);
  perform amqp._check_short('app_id', app_id);
  perform amqp._check_short('user_id', user_id);
  if delivery_mode not in (1, 2) then
    perform amqp._refuse(format('delivery_mode is %s, AMQP knows 1 and 2', delivery_mode),
      'Give 2 for a message that survives a restart of the broker (the default), 1 for one that need not.');
  end if;
  if priority not between 0 and 255 then
    perform amqp._refuse(format('priority is %s, AMQP allows 0 to 255', priority), 'Give a number from 0 to 255.');
  end if;
  if expiration <> '' and (expiration !~ '^[0-9]{1,10}$' or expiration::bigint > 4294967295) then
    perform amqp._refuse(format('expiration is "%s", not a number of milliseconds that the broker takes', left(expiration, 60)),
      'Give milliseconds as digits only, at most 4294967295: ''60000'' is a minute.');
  end if;
  if reply_to = 'amq.rabbitmq.reply-to' then
    perform amqp._refuse('reply_to is "amq.rabbitmq.reply-to", for which the broker would close the channel',
      'Direct reply-to works only for a client that consumes on the same channel; name a queue.');
  end if;
  if "timestamp" < '1970-01-01 00:00:00+00' or "timestamp" >= '10000-01-01 00:00:00+00' then
    perform amqp._refuse(format('timestamp is %s, AMQP counts seconds from 1970 on', "timestamp"), 'Give a time from 1970 to 9999.');
  end if;
  perform amqp._check_headers('headers', headers);
  perform amqp._check_copies(headers);
end
$$;

create or replace function amqp._check_size(bytes bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if bytes > 1069000000 then -- the limit of amqp._emit
    raise exception 'message is % bytes long with its properties, the limit is 1069000000', bytes
      using errcode = '54000', hint = 'Send less, or a reference to where it is.';
  end if;
end
$$;

-- Defines them, such that they sign if there is a key.
create or replace function amqp._define_publish() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $install$
declare
  signs constant boolean := exists (select from amqp.signing_key);

  -- The length of a text as UTF-8, which in most databases is what is stored.
  utf8 constant boolean := (select d.encoding = pg_char_to_encoding('UTF8')
                              from pg_database d where d.datname = current_database());
  bytes constant text := case when utf8 then 'octet_length(%s)' else 'octet_length(convert_to(%s, ''UTF8''))' end;
  -- To the disk at once, or up to 16 at the end of the transaction, as in amqp._flush_at_end.
  modern constant boolean := current_setting('server_version_num')::integer >= 170000;
  flush constant text := case when modern then ', flush => true' else '' end;
  flush_at_end constant text := case when modern then '' else ' and pg_current_xact_id() is not null' end;

  -- The whole function, but for what differs between its forms. What is needed once in the
  -- usual case is in no variable: an assignment costs more than most expressions here.
  template constant text := $template$
create or replace function amqp.{name}(broker_id integer, exchange {exchange}, routing_key text, message {type}{options})
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_variable
declare
  bytes bigint;{declare}
begin
  if (broker_id = any (amqp._broker_ids())) is not true
     or {suspect} then
    perform amqp._check_broker(broker_id);
    perform amqp._check_publish({arguments});
    perform amqp._check_limits(broker_id, exchange, routing_key{headers});
    bytes := 10 + octet_length({fields})::bigint
      + octet_length({body});
    perform amqp._check_size(bytes);
  end if;
  return pg_logical_emit_message({transactional}, 'amqp', {sign}E'\\x0170'::bytea || int4send(broker_id)
    || {fields}
    || E'\\x00000000' || {body}{signed}{flush}) is not null{flush_at_end};
end
$function$
$template$;

  options constant text := ', delivery_mode integer default null, content_type text default null, '
    'reply_to text default null, correlation_id text default null, headers jsonb default null, '
    'message_id text default null, priority integer default null, expiration text default null, '
    'type text default null, app_id text default null, user_id text default null, '
    'content_encoding text default null, "timestamp" timestamptz default null, mandatory boolean default true';

  -- Arguments that AMQP limits to 255 bytes.
  short constant text[] := array['exchange', 'routing_key', 'content_type', 'content_encoding', 'reply_to',
    'correlation_id', 'message_id', 'expiration', 'type', 'app_id', 'user_id'];

  form record;
  field record;
  fields text;
  lengths text;
  suspect text;
  definition text;
begin
  for form in
    select f.name, f.transactional, t.*, l.long
      from (values ('publish', true), ('autonomous_publish', false)) f(name, transactional),
           (values ('text', 'coalesce(convert_to(message, ''UTF8''), '''')', null, null),
                   ('bytea', 'coalesce(message, '''')', null, null),
                   ('jsonb', 'body', 'coalesce(convert_to(message::text, ''UTF8''), '''')', 'application/json'),
                   ('json', 'body', 'coalesce(convert_to(message::text, ''UTF8''), '''')', 'application/json')
           ) t(type, body, variable, content_type),
           (values (false), (true)) l(long)
  loop
    fields := null;
    lengths := null;
    for field in
      -- In the order of the envelope. What is bytes already comes as an expression of its own.
      select * from (values
        ('x', 'exchange', null, false),
        ('k', 'routing_key', null, false),
        ('m', null, $$case delivery_mode when 1 then E'\\x6d00000131'::bytea when 2 then E'\\x6d00000132' else '' end$$, true),
        ('t', 'content_type', null, true),
        ('n', 'content_encoding', null, true),
        ('y', 'reply_to', null, true),
        ('c', 'correlation_id', null, true),
        ('h', null, format('coalesce(int4send(%s + least(%s, 16777215)) || convert_to(header_text, ''UTF8''), '''')',
                           ascii('h') << 24, format(bytes, 'header_text')), true),
        ('i', 'message_id', null, true),
        ('p', 'priority::text', null, true),
        ('e', 'expiration', null, true),
        ('w', 'type', null, true),
        ('a', 'app_id', null, true),
        ('u', 'user_id', null, true),
        ('s', 'seconds', null, true),
        ('f', null, $$case when coalesce(mandatory, true) then '' else E'\\x6600000175'::bytea end$$, true),
        ('r', 'session_user::text', null, false)
      ) v(tag, value, expression, long)
    loop
      if field.long and not form.long then
        continue when field.tag <> 't' or form.content_type is null;
        field.value := quote_literal(form.content_type);
      end if;
      if field.value = any (short) then
        lengths := concat_ws(', ', lengths, format(bytes, field.value));
      end if;
      if field.tag = 't' and form.long and form.content_type is not null then
        field.value := format('coalesce(nullif(content_type, ''''), %L)', form.content_type);
      end if;
      -- Of the length only the last byte is set: whatever is longer does not get past the test.
      fields := concat_ws(E'\n    || ', fields, coalesce(field.expression,
        format($$coalesce(set_byte(E'\\x%s000000', 3, nullif(%s, 0)) || convert_to(%s, 'UTF8'), '')$$,
          to_hex(ascii(field.tag)), format(bytes, field.value), field.value)));
    end loop;

    -- What needs a closer look; everything that amqp._check_publish would refuse is in here.
    suspect := format(E'greatest(%s) > 255\n     or octet_length(%s) > %s', lengths,
      case when form.variable is null then 'message' else form.body end,
      -- Far below the limit: a header has 16 MB at most, and conversion makes a text up to 4 times as long.
      case when utf8 then 1000000000 else 250000000 end);
    if form.long then
      suspect := suspect || $$
     or delivery_mode not in (1, 2) or priority not between 0 and 255
     or octet_length(expiration) > 9 or translate(expiration, '0123456789', '') <> ''
     or reply_to = 'amq.rabbitmq.reply-to'
     or "timestamp" < '1970-01-01 00:00:00+00' or "timestamp" >= '10000-01-01 00:00:00+00'
     or octet_length(header_text) > 255 or header_text !~ '^[{][^][{$]*$' or headers ?| '{CC,BCC}'$$;
    end if;

    definition := template;
    definition := replace(definition, '{name}', form.name);
    definition := replace(definition, '{exchange}', case when form.long then 'amqp.exchange_name' else 'text' end);
    definition := replace(definition, '{type}', form.type);
    definition := replace(definition, '{options}', case when form.long then options else '' end);
    definition := replace(definition, '{declare}',
      case when form.long then E'\n  header_text constant text := headers::text;'
           '\n  seconds constant text := floor(extract(epoch from "timestamp"))::text;' else '' end
      || coalesce(E'\n  body constant bytea := ' || form.variable || ';', ''));
    definition := replace(definition, '{fields}', fields);
    definition := replace(definition, '{body}', form.body);
    definition := replace(definition, '{suspect}', suspect);
    definition := replace(definition, '{arguments}', case when form.long
      then 'exchange, routing_key, delivery_mode, content_type, content_encoding, reply_to, correlation_id, '
           'headers, message_id, priority, expiration, type, app_id, user_id, "timestamp"'
      else 'exchange, routing_key' end);
    definition := replace(definition, '{headers}', case when form.long then ', headers' else '' end);
    definition := replace(definition, '{sign}', case when signs then 'amqp._signed({transactional}, ' else '' end);
    definition := replace(definition, '{signed}', case when signs then ')' else '' end);
    definition := replace(definition, '{transactional}', form.transactional::text);
    definition := replace(definition, '{flush}', case when form.transactional then '' else flush end);
    definition := replace(definition, '{flush_at_end}', case when form.transactional then '' else flush_at_end end);
    execute definition;
    execute format('comment on function amqp.%I(integer, %s) is %L', form.name,
      case when form.long then 'amqp.exchange_name, text, ' || form.type || ', integer, text, text, text, jsonb, text, '
                               'integer, text, text, text, text, text, timestamptz, boolean'
           else 'text, text, ' || form.type end,
      case when form.transactional then 'sends a message when the transaction commits'
           else 'sends a message now, even if the transaction rolls back' end);
  end loop;
end
$install$;
select amqp._define_publish();
