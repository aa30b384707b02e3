-- A caller tries to bring in functions, operators and tables of his own.
select no_plan();

create role t_attacker in role pgamqp_publisher;
grant usage on schema t to t_attacker;
create schema evil authorization t_attacker;
create table t.caught (what text);
grant insert, select on t.caught to t_attacker;
set session authorization t_attacker;

create function evil.trap(what text) returns void language sql as $$ insert into t.caught values (what || ' as ' || current_user) $$;
create function evil.octet_length(text) returns integer language plpgsql as $$ begin perform evil.trap('octet_length'); return 1; end $$;
create function evil.octet_length(bytea) returns integer language plpgsql as $$ begin perform evil.trap('octet_length'); return 1; end $$;
create function evil.convert_to(text, text) returns bytea language plpgsql as $$ begin perform evil.trap('convert_to'); return ''; end $$;
create function evil.convert_to(text, name) returns bytea language plpgsql as $$ begin perform evil.trap('convert_to'); return ''; end $$;
create function evil.pg_logical_emit_message(boolean, text, bytea) returns pg_lsn language plpgsql as $$ begin perform evil.trap('emit'); return '0/0'; end $$;
create function evil.pg_logical_emit_message(boolean, text, bytea, boolean) returns pg_lsn language plpgsql as $$ begin perform evil.trap('emit'); return '0/0'; end $$;
create function evil.cat(bytea, bytea) returns bytea language plpgsql as $$ begin perform evil.trap('||'); return $1; end $$;
create operator evil.|| (leftarg = bytea, rightarg = bytea, function = evil.cat);
create function evil.eq(integer, integer) returns boolean language plpgsql as $$ begin perform evil.trap('='); return true; end $$;
create operator evil.= (leftarg = integer, rightarg = integer, function = evil.eq);
create function evil.gt(integer, integer) returns boolean language plpgsql as $$ begin perform evil.trap('>'); return false; end $$;
create operator evil.> (leftarg = integer, rightarg = integer, function = evil.gt);
create function evil.jsonb_each(jsonb) returns table (key text, value jsonb) language plpgsql as $$ begin perform evil.trap('jsonb_each'); end $$;
-- A cast is by types alone, wherever its function is.
create type evil.exchange as enum ('ex');
create function evil.as_text(evil.exchange) returns pg_catalog.text language plpgsql as $$ begin perform evil.trap('cast to text'); return 'ex'; end $$;
create cast (evil.exchange as pg_catalog.text) with function evil.as_text(evil.exchange) as implicit;
create function evil.as_number(evil.exchange) returns pg_catalog.int4 language plpgsql as $$ begin perform evil.trap('cast to integer'); return 1; end $$;
create cast (evil.exchange as pg_catalog.int4) with function evil.as_number(evil.exchange) as implicit;
create type evil.text as (a integer);
create type evil.int4 as (a integer);

-- pgTAP would fall into the traps itself, so the calls stand alone.
set search_path = evil, amqp, pg_catalog;
\o /dev/null
select amqp.publish(1, 'ex'::pg_catalog.text, 'k'::pg_catalog.text, 'm'::pg_catalog.text);
select amqp.publish(1, 'ex', 'k', 'm'::pg_catalog.text, 2, headers => '{"a": {"$int8": 1}}');
select amqp.autonomous_publish(1, 'ex', 'k', '{}'::jsonb);
select amqp.queue_declare(1, 'q', arguments => '{"a": {"$int8": 1}}');
select amqp.disconnect(1);
select amqp.publish(1, 'ex'::pg_catalog.text, 'ex'::evil.exchange, 'm'::pg_catalog.text);
select amqp.disconnect('ex'::evil.exchange);
select amqp.wait_delivered('FFFFFFFF/FFFFFFFF', '0s');
\o
reset search_path;
select pass('every call returned');

-- Temporary objects come before everything else unless told otherwise.
create temp table broker (broker_id integer);
insert into pg_temp.broker values (7);
create temp table installation (slot_name text);
insert into pg_temp.installation values ('x');
create temp table pg_replication_slots (slot_name text);
create temp table pg_proc (oid oid);
set search_path = pg_temp, evil, amqp, pg_catalog;
\set ON_ERROR_STOP 0
\o /dev/null
select amqp.publish(7, 'ex', 'k', 'm'::pg_catalog.text);
\o
\set state :SQLSTATE
\set ON_ERROR_STOP 1
select amqp.delivered('0/1') as delivered \gset
reset search_path;
select is(:'state'::text, '22023', 'a temporary table named broker is not asked');
select is(:'delivered'::text, 't', 'nor one named installation');
drop table pg_temp.pg_proc;
select is_empty($$select * from t.caught where what not like 'cast %'$$, 'no trap was entered');
select results_eq('select what from t.caught order by what', array['cast to integer as t_attacker', 'cast to text as t_attacker'], 'a cast runs before the call, as the caller');
reset session authorization;

call t.commit();
select is((select count(*) from t.take()), 8::bigint, 'and all messages came through');

select * from finish();
drop owned by t_attacker cascade;
drop role t_attacker;
