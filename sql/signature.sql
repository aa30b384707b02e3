-- Signed messages, for services that do not let the right to call pg_logical_emit_message be taken from PUBLIC: a message
-- that amqp.publish has not written is found out. The functions sign with a key that only they and the daemon read:
-- HMAC-SHA256 over the envelope and the number of the transaction, so that none can be written again by another one. (An
-- autonomous message belongs to no transaction, and its position is not known before it is written: it can be repeated.)
--
-- What is signed has the version 2 in its first byte, and the signature behind the body.

create table if not exists amqp.signing_key (
  key_id integer generated always as identity primary key,
  -- The key, as HMAC uses it: 64 bytes each.
  inner_pad bytea not null,
  outer_pad bytea not null,
  made_at timestamptz not null default now(),
  made_by xid8 not null default pg_current_xact_id()
);
comment on table amqp.signing_key is
  'the newest one signs, all are accepted: delete an old one when all that was signed with it is delivered. See amqp.sign_messages';

do $$
begin
  if not exists (select from pg_attribute a where a.attrelid = 'amqp.installation'::regclass and a.attname = 'signed_from') then
    alter table amqp.installation add signed_from pg_lsn, add signed_on bigint;
  end if;
end
$$;
comment on column amqp.installation.signed_from is 'what is written behind it and not signed is forged; NULL: nothing has to be signed';
comment on column amqp.installation.signed_on is 'system identifier of the server that signed_from is a position of; on any other all must be signed';

create or replace function amqp._pad(key bytea, with_byte integer) returns bytea
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select decode(string_agg(lpad(to_hex(case when i < octet_length(key) then get_byte(key, i) else 0 end # with_byte), 2, '0'), '' order by i), 'hex')
    from generate_series(0, 63) i
$$;

-- Signs an envelope if there is a key. Only one of version 1: anything else would be read as one afterwards. A transaction
-- that makes a key has not committed when what is autonomous is read: that is signed by the key before.
create or replace function amqp._signed(transactional boolean, content bytea) returns bytea
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  k record;
begin
  select s.inner_pad, s.outer_pad into k from amqp.signing_key s
   where transactional or s.made_by is distinct from pg_current_xact_id_if_assigned() order by s.key_id desc limit 1;
  if not found and exists (select from amqp.installation i where i.signed_from is not null) then
    raise exception 'messages must be signed, and there is no key' using errcode = '55000', hint = 'First: select amqp.sign_messages();';
  end if;
  if not found or substr(content, 1, 1) <> E'\\x01' then
    return content;
  end if;
  content := set_byte(content, 0, 2);
  return content || sha256(k.outer_pad || sha256(k.inner_pad || content
    || int8send(case when transactional then pg_current_xact_id()::text::bigint & 4294967295 else 0 end)));
end
$$;

-- Without a key nothing could be told from what is forged: the last one stays while signatures are required.
create or replace function amqp._keep_a_key() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(123588459164017); -- as all who change keys, or what they are for
  if exists (select from amqp.installation i where i.signed_from is not null) and not exists (select from amqp.signing_key) then
    raise exception 'messages must be signed' using errcode = '55000', hint = 'First: select amqp.require_signatures(false);';
  end if;
  return null;
end
$$;
revoke all on function amqp._keep_a_key() from public;
create or replace trigger pgamqp_keep_a_key
  after update or delete or truncate on amqp.signing_key
  for each statement execute function amqp._keep_a_key();

create or replace function amqp.sign_messages(sign boolean default true) returns integer
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  -- Each has 122 bits that nobody can guess.
  key constant bytea := sha256(convert_to(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8'));
  id integer;
begin
  perform pg_advisory_xact_lock(123588459164017);
  if sign then
    insert into amqp.signing_key (inner_pad, outer_pad) values (amqp._pad(key, 54), amqp._pad(key, 92)) returning key_id into id;
  elsif exists (select from amqp.installation i where i.signed_from is not null) then
    raise exception 'messages must be signed' using errcode = '55000', hint = 'First: select amqp.require_signatures(false);';
  else
    delete from amqp.signing_key;
  end if;
  perform amqp._define_publish();
  perform amqp._emit(true, amqp._envelope('c', 0, ''));
  return id;
end
$$;
comment on function amqp.sign_messages(boolean) is
  'messages are signed from now on, with a new key, whose number it returns; false: they are not any more';

create or replace function amqp.require_signatures(required boolean default true) returns pg_lsn
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  since xid8;
  lsn pg_lsn;
begin
  perform pg_advisory_xact_lock(123588459164017);
  since := (select k.made_by from amqp.signing_key k order by k.key_id limit 1);
  if required then
    if since is null then
      raise exception 'no message is signed' using errcode = '55000', hint = 'First: select amqp.sign_messages();';
    end if;
    -- What such a transaction has not written yet is perhaps not signed.
    if pg_snapshot_xmin(pg_current_snapshot()) <= since then
      raise exception 'a transaction is open that began before messages were signed'
        using errcode = '55000', hint = 'Try again when it has ended: select pid, xact_start, query from pg_stat_activity where backend_xid is not null order by xact_start;';
    end if;
    lsn := pg_current_wal_insert_lsn();
  end if;
  update amqp.installation i
     set signed_from = lsn, signed_on = (select c.system_identifier from pg_control_system() c where required);
  perform amqp._emit(true, amqp._envelope('c', 0, ''));
  return lsn;
end
$$;
comment on function amqp.require_signatures(boolean) is
  'what is not signed becomes a dead letter from now on, with the reason forged; returns from where on; false: it is sent again';
