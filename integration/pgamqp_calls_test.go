package integration

// oldCall is SQL as it was written for pg_amqp 0.4.2, what that does, and what pgamqp does. What pg_amqp does stands here
// from its documentation, its source and from measurements; what pgamqp does is tried.
//
// The fixtures: exchange e and keys k and foo of amq.direct lead to queue all, exchange lonely to no queue; of broker 2
// the first host is dead; there is no broker 9.
type oldCall struct {
	name string
	sql  []string // one session; "!stop", "!start" and "!restart" are for the broker, behind "!standby" it is one with a standby
	// What the statements yield, and what comes out of the queue: exchange/key body {properties other than the defaults}, and
	// dead letters as [reason exchange/key body]. empty is nothing.
	theirs, ours outcome
	difference   string // row of the table in docs/migrate-from-pg_amqp.md; none if both do the same
	properties   bool   // show all properties
}

type outcome struct{ says, comes string }

// same is an outcome of both.
func same(name, says, comes string, sql ...string) oldCall {
	o := outcome{says, comes}
	return oldCall{name: name, sql: sql, theirs: o, ours: o}
}

func differs(difference, name string, theirs, ours outcome, sql ...string) oldCall {
	return oldCall{name: name, sql: sql, theirs: theirs, ours: ours, difference: difference}
}

const onError = `do $$ begin perform amqp.publish(1, 'e', 'k', 'in'); raise 'x'; exception when others then perform amqp.publish(1, 'e', 'k', 'out'); end $$`

func oldCalls() []oldCall {
	const refused = "error 22023"
	defaults := differs("properties", "all properties of a message that gives none", outcome{"t", "e/k m {}"},
		outcome{"t", "e/k m {mode 2, an id}"}, `select amqp.publish(1, 'e', 'k', 'm')`)
	defaults.properties = true
	return []oldCall{
		// as the documentation writes it
		same("four arguments", "t", "e/k m", `select amqp.publish(1, 'e', 'k', 'm')`),
		same("eight arguments", "t", "amq.direct/foo message {mode 1, application/json, to some_reply_to, correlation correlation_id}",
			`select amqp.publish(1, 'amq.direct', 'foo', 'message', 1, 'application/json', 'some_reply_to', 'correlation_id')`),
		same("five, six and seven arguments", "t | t | t", "e/k a, e/k b {t}, e/k c {t, to r}",
			`select amqp.publish(1, 'e', 'k', 'a', 2)`, `select amqp.publish(1, 'e', 'k', 'b', 2, 't')`, `select amqp.publish(1, 'e', 'k', 'c', 2, 't', 'r')`),
		same("named arguments", "t", "e/k m {correlation c}",
			`select amqp.publish(routing_key := 'k', broker_id := 1, exchange := 'e', message := 'm', correlation_id := 'c')`),
		same("variables of type varchar", "", "e/k m {t}",
			`do $$ declare e varchar := 'e'; k varchar(9) := 'k'; b integer := 1; begin perform amqp.publish(b, e, k, 'm'::varchar, 2, 't'::varchar); end $$`),
		same("autonomous", "t", "e/k m {mode 1}", `select amqp.autonomous_publish(1, 'e', 'k', 'm', 1)`),
		same("characters of any kind", "t", "e/k ü€ ' \\ {t}", `select amqp.publish(1, 'e', 'k', E'ü€ \' \\', null, 't')`),
		same("a row each", "t, t", "e/k 1, e/k 2", `select amqp.publish(1, 'e', 'k', n::varchar) from generate_series(1, 2) n`),
		same("the second host of a broker, when the first one is dead", "t", "e/k m", `select amqp.publish(2, 'e', 'k', 'm')`),
		same("a broker of the same transaction", " |  | t | ", "e/k m", `begin`, `insert into amqp.broker select 3, host, port, vhost from amqp.broker where broker_id = 1`,
			`select amqp.publish(3, 'e', 'k', 'm')`, `commit`),

		differs("hosts", "of a broker with two hosts, the one that is tried first", outcome{" | t", ""}, outcome{" | t", "e/k m"},
			`insert into amqp.broker (broker_id, host, port, vhost) select 4, h.host, b.port, h.vhost from amqp.broker b, lateral (values ('127.0.0.1', b.vhost), ('localhost', '/')) h(host, vhost)
			  where b.broker_id = 1`, `select amqp.publish(4, 'e', 'k', 'm')`),
		differs("requiressl", "a broker without TLS", outcome{"", ""}, outcome{"error 42703", ""},
			`insert into amqp.broker (broker_id, host, requiressl) values (5, 'localhost', false)`),
		differs("standby", "on a hot standby", outcome{"t", "e/k m"}, outcome{"error XX000", ""}, `!standby`, `select amqp.publish(1, 'e', 'k', 'm')`),

		// NULL in each argument in turn
		differs("null-broker", "broker_id is null", outcome{"f", ""}, outcome{refused, ""}, `select amqp.publish(null, 'e', 'k', 'm')`),
		differs("null-exchange", "exchange is null", outcome{"t", "amq.direct/foo m"}, outcome{"t", "[unroutable /foo m]"}, `select amqp.publish(1, null, 'foo', 'm')`),
		same("routing_key is null", "t", "e/ m", `select amqp.publish(1, 'e', null, 'm')`),
		same("message is null", "t", "e/k ", `select amqp.publish(1, 'e', 'k', null)`),
		same("delivery_mode is null", "t", "e/k m {t}", `select amqp.publish(1, 'e', 'k', 'm', null, 't')`),
		same("content_type is null", "t", "e/k m {mode 1}", `select amqp.publish(1, 'e', 'k', 'm', 1, null)`),
		same("reply_to is null", "t", "e/k m {correlation c}", `select amqp.publish(1, 'e', 'k', 'm', null, null, null, 'c')`),
		same("correlation_id is null", "t", "e/k m {to r}", `select amqp.publish(1, 'e', 'k', 'm', null, null, 'r', null)`),
		same("headers is null", "t", "e/k m", `select amqp.publish(1, 'e', 'k', 'm', null, null, null, null, null)`),
		differs("null-broker", "broker_id is null, autonomous", outcome{"f", ""}, outcome{refused, ""}, `select amqp.autonomous_publish(null, 'e', 'k', 'm')`),

		// what is wrong
		differs("unknown-broker", "a broker that is not in the table", outcome{"f", ""}, outcome{refused, ""}, `select amqp.publish(9, 'e', 'k', 'm')`),
		differs("unknown-broker", "the transaction goes on, or does not", outcome{" |  | f | ", ""}, outcome{" |  | " + refused + " | ", ""},
			`begin`, `create temporary table x (a integer)`, `select amqp.publish(9, 'e', 'k', 'm')`, `commit`),
		differs("delivery-mode", "a delivery mode that AMQP does not know", outcome{"t", "e/k m"}, outcome{refused, ""}, `select amqp.publish(1, 'e', 'k', 'm', 3)`),
		differs("unroutable", "an exchange that leads to no queue", outcome{"t", ""}, outcome{"t", "[unroutable lonely/k m]"}, `select amqp.publish(1, 'lonely', 'k', 'm')`),
		differs("no-exchange", "no such exchange", outcome{"t", ""}, outcome{"t", "[not_found gone/k m]"}, `select amqp.publish(1, 'gone', 'k', 'm')`),
		differs("no-exchange", "the other messages of the transaction", outcome{" | t | t | ", ""}, outcome{" | t | t | ", "e/k good, [not_found gone/k bad]"},
			`begin`, `select amqp.publish(1, 'e', 'k', 'good')`, `select amqp.publish(1, 'gone', 'k', 'bad')`, `commit`),
		differs("headers", "headers as an array", outcome{"f", ""}, outcome{"error 42883", ""},
			`select amqp.publish(1, 'e', 'k', 'm', 2, 't', 'r', 'c', array[array['a', 'b']]::varchar[])`),
		differs("headers", "headers as the text of an array", outcome{"f", ""}, outcome{"error 22P02", ""},
			`select amqp.publish(1, 'e', 'k', 'm', headers => '{{a,b}}')`),
		same("a role without a grant", " | error 42501", "", `set role plain`, `select amqp.publish(1, 'e', 'k', 'm')`), // there for want of SELECT on amqp.broker
		differs("public", "a role that may read amqp.broker", outcome{" |  | t", "e/k m"}, outcome{" |  | error 42501", ""},
			`grant select on amqp.broker to plain`, `set role plain`, `select amqp.publish(1, 'e', 'k', 'm')`),
		differs("public", "a role that may publish and reads nothing", outcome{" |  |  | error 42501", ""}, outcome{" |  |  | t", "e/k m"},
			`revoke select on amqp.broker from plain`, `grant pgamqp_publisher to plain`, `set role plain`, `select amqp.publish(1, 'e', 'k', 'm')`),
		defaults,

		// transactions
		same("rolled back", " | t | ", "", `begin`, `select amqp.publish(1, 'e', 'k', 'm')`, `rollback`),
		same("rolled back after an error", " | t | error 22012 | ", "", `begin`, `select amqp.publish(1, 'e', 'k', 'm')`, `select 1 / 0`, `commit`),
		same("autonomous and rolled back", " | t | t | ", "e/k kept", `begin`, `select amqp.publish(1, 'e', 'k', 'm')`, `select amqp.autonomous_publish(1, 'e', 'k', 'kept')`, `rollback`),
		same("a transaction that only reads", " | t | ", "e/k m", `begin read only`, `select amqp.publish(1, 'e', 'k', 'm')`, `commit`),
		differs("savepoints", "rolled back to a savepoint", outcome{" |  | t |  | t | ", "e/k in, e/k out"}, outcome{" |  | t |  | t | ", "e/k out"},
			`begin`, `savepoint s`, `select amqp.publish(1, 'e', 'k', 'in')`, `rollback to s`, `select amqp.publish(1, 'e', 'k', 'out')`, `commit`),
		same("a savepoint that is kept", " |  | t |  | ", "e/k in", `begin`, `savepoint s`, `select amqp.publish(1, 'e', 'k', 'in')`, `release s`, `commit`),
		same("autonomous, to a savepoint", " |  | t |  | ", "e/k in", `begin`, `savepoint s`, `select amqp.autonomous_publish(1, 'e', 'k', 'in')`, `rollback to s`, `commit`),
		differs("savepoints", "an exception that is caught", outcome{"", "e/k in, e/k out"}, outcome{"", "e/k out"}, onError),
		differs("two-phase", "prepared and rolled back", outcome{" | t |  | ", "e/k m"}, outcome{" | t |  | ", ""},
			`begin`, `select amqp.publish(1, 'e', 'k', 'm')`, `prepare transaction 'p'`, `rollback prepared 'p'`),
		same("prepared and committed", " | t |  | ", "e/k m", `begin`, `select amqp.publish(1, 'e', 'k', 'm')`, `prepare transaction 'p'`, `commit prepared 'p'`),

		// functions, triggers, prepared statements
		same("a function", " | t", "e/k x", `create function send(m varchar) returns boolean language sql as $$ select amqp.publish(1, 'e', 'k', m) $$`, `select send('x')`),
		same("a trigger", " |  |  | ", "e/k 1, e/k 2", `create table rows (id integer)`,
			`create function sends() returns trigger language plpgsql as $$ begin perform amqp.publish(1, 'e', 'k', new.id::varchar); return new; end $$`,
			`create trigger sends after insert on rows for each row execute function sends()`, `insert into rows values (1), (2)`),
		same("a deferred trigger", " |  |  |  | ", "e/k 3, e/k 3", `create constraint trigger late after insert on rows initially deferred for each row execute function sends()`,
			`begin`, `insert into rows values (3)`, `commit`, `drop table rows`),
		same("a prepared statement with parameters", " | t | t", "e/k 1, e/k 2", `prepare p as select amqp.publish(1, 'e', 'k', $1)`, `execute p('1')`, `execute p('2')`),
		differs("immutable", "a prepared statement of constants", outcome{" | t | t | t", "e/k m"}, outcome{" | t | t | t", "e/k m, e/k m, e/k m"},
			`prepare c as select amqp.publish(1, 'e', 'k', 'm')`, `execute c`, `execute c`, `execute c`),
		differs("immutable", "constants for several rows", outcome{"t, t", "e/k m"}, outcome{"t, t", "e/k m, e/k m"}, `select amqp.publish(1, 'e', 'k', 'm') from generate_series(1, 2)`),
		differs("immutable", "constants in a loop", outcome{"", "e/k m"}, outcome{"", "e/k m, e/k m"}, `do $$ begin for i in 1..2 loop perform amqp.publish(1, 'e', 'k', 'm'); end loop; end $$`),
		differs("immutable", "constants that no row needs", outcome{"", "e/k m"}, outcome{"", ""}, `select case when n > 5 then amqp.publish(1, 'e', 'k', 'm') end from generate_series(1, 1) n`),
		differs("immutable", "explain", outcome{"Result", "e/k m"}, outcome{"Result", ""}, `explain (costs off) select amqp.publish(1, 'e', 'k', 'm')`),

		// exchanges
		same("declare an exchange, twice", "t | t", "", `select amqp.exchange_declare(1, 'new', 'fanout', false, true)`, `select amqp.exchange_declare(1, 'new', 'fanout', false, true, false)`),
		same("named arguments of a declaration", "t", "", `select amqp.exchange_declare(broker_id := 1, exchange := 'named', exchange_type := 'topic', passive := false, durable := true)`),
		same("a declaration that is rolled back is made all the same", " | t |  | t", "", `begin`, `select amqp.exchange_declare(1, 'kept', 'topic', false, true)`, `rollback`,
			`select amqp.exchange_declare(1, 'kept', 'topic', true, true)`),
		same("NULL for what is true or false is false", "t | t", "", `select amqp.exchange_declare(1, 'nulls', 'topic', null, null, null)`, `select amqp.exchange_declare(1, 'nulls', 'topic', false, false, false)`),
		differs("declare", "another type", outcome{"f", ""}, outcome{"t", "[precondition_failed e/ ]"}, `select amqp.exchange_declare(1, 'e', 'fanout', false, true)`),
		differs("declare", "passive, and it is not there", outcome{"f", ""}, outcome{"t", "[not_found gone/ ]"}, `select amqp.exchange_declare(1, 'gone', 'fanout', true, true)`),
		differs("declare", "publish after a declaration that failed", outcome{" | f | f | ", ""}, outcome{" | t | t | ", "e/k m, [precondition_failed e/ ]"},
			`begin`, `select amqp.exchange_declare(1, 'e', 'fanout', false, true)`, `select amqp.publish(1, 'e', 'k', 'm')`, `commit`),
		differs("null-broker", "declare at broker null", outcome{"f", ""}, outcome{refused, ""}, `select amqp.exchange_declare(null, 'x', 'fanout', false, true)`),
		differs("null-exchange", "declare without an exchange", outcome{"undefined", "undefined"}, outcome{refused, ""}, `select amqp.exchange_declare(1, null, 'fanout', false, true)`),
		differs("null-exchange", "declare without a type", outcome{"undefined", "undefined"}, outcome{refused, ""}, `select amqp.exchange_declare(1, 'x', null, false, true)`),
		differs("unknown-broker", "declare at an unknown broker", outcome{"f", ""}, outcome{refused, ""}, `select amqp.exchange_declare(9, 'x', 'fanout', false, true)`),

		// disconnect
		differs("disconnect", "disconnect", outcome{"", ""}, outcome{"t", ""}, `select amqp.disconnect(1)`),
		differs("disconnect", "disconnect all", outcome{", , , , , ", ""}, outcome{"t, t, t, t, t, t", ""}, `select amqp.disconnect(broker_id) from amqp.broker`),
		differs("disconnect", "disconnect null", outcome{"", ""}, outcome{refused, ""}, `select amqp.disconnect(null)`),
		differs("disconnect", "disconnect an unknown broker", outcome{"", ""}, outcome{refused, ""}, `select amqp.disconnect(9)`),
		same("disconnect whose result nobody wants", "", "", `do $$ begin perform amqp.disconnect(1); end $$`),
		same("publish after it", " | t", "e/k m", `do $$ begin perform amqp.disconnect(1); end $$`, `select amqp.publish(1, 'e', 'k', 'm')`),

		// the broker goes and comes
		differs("down", "the broker is down", outcome{"f", ""}, outcome{"t", "e/k m"}, `!stop`, `select amqp.publish(1, 'e', 'k', 'm', 2)`, `!start`),
		differs("commit", "the broker restarts before the commit", outcome{" | t | ", ""}, outcome{" | t | ", "e/k m"},
			`begin`, `select amqp.publish(1, 'e', 'k', 'm', 2)`, `!restart`, `commit`),
		differs("commit", "the broker restarts between two messages of a session", outcome{"t | t", "e/k a"}, outcome{"t | t", "e/k a, e/k b"},
			`select amqp.publish(1, 'e', 'k', 'a', 2)`, `!restart`, `select amqp.publish(1, 'e', 'k', 'b', 2)`),
		same("a new session after that", "t", "e/k m", `select amqp.publish(1, 'e', 'k', 'm')`),
	}
}
