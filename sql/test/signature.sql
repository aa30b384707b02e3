-- What is signed: messages of version 1, with a key that the daemon can have by then.
select no_plan();

-- First bytes of what is in the slot, which is empty afterwards, and whether 32 more are behind the content.
create function t.signed() returns text language sql as $$
  select string_agg(format('%s %s', encode(substring(c.data from 20 for 1), 'hex'), case when get_byte(c.data, 1) = 1 then 'in' else 'out' end), ', ')
    from amqp.installation i,
         pg_logical_slot_get_binary_changes(i.slot_name, null, null, 'proto_version', '1', 'publication_names', i.publication_name, 'messages', 'true') c
   where get_byte(c.data, 0) = ascii('M') and chr(get_byte(c.data, 20)) <> 'c'
$$;

begin;
select amqp.sign_messages() as key \gset
select amqp.publish(1, 'ex', 'k', 'm'), amqp.autonomous_publish(1, 'ex', 'k', 'm') \g /dev/null
commit;
call t.commit();
select is(t.signed(), '01 out, 02 in', 'what does not wait for the transaction of the first key is not signed by it');
select amqp.publish(1, 'ex', 'k', 'm'), amqp.autonomous_publish(1, 'ex', 'k', 'm') \g /dev/null
call t.commit();
select is(t.signed(), '02 out, 02 in', 'afterwards all is signed');

-- With a key that was there before, that one signs.
begin;
select amqp.sign_messages() \g /dev/null
select is(amqp._signed(false, '\x0170'::bytea), '\x0270'::bytea || sha256(k.outer_pad || sha256(k.inner_pad || '\x0270'::bytea || int8send(0))), 'outside of the transaction the key from before signs')
  from amqp.signing_key k where k.key_id = :key;
select isnt(amqp._signed(true, '\x0170'::bytea), amqp._signed(false, '\x0170'::bytea), 'inside the new one');
rollback;

-- What is not of version 1 would be taken for it.
insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values
  ('newer', '0/1', 'unknown', 'undecodable', '\x0370', ''), ('no envelope', '0/1', 'unknown', 'undecodable', 'text', ''), ('empty', '0/1', 'unknown', 'undecodable', '', '');
select is(amqp.redeliver_all(), 3::bigint, 'dead letters of a newer version are sent again');
select is((select string_agg(encode(substring(c.data from 20), 'hex'), ', ')
             from amqp.installation i,
                  pg_logical_slot_get_binary_changes(i.slot_name, null, null, 'proto_version', '1', 'publication_names', i.publication_name, 'messages', 'true') c
            where get_byte(c.data, 0) = ascii('M')), '0370, 74657874, ', 'as they were');

select amqp.sign_messages(false) \g /dev/null
select * from finish();
