package demo

// script is one kind of transaction that pgbench runs.
type script struct {
	name   string
	weight int
	sql    string
}

// scripts returns the mix. Each takes a new id for every message it tries to send,
// and records those that must arrive.
func scripts() []script {
	return []script{
		{"commit", 5, `
select nextval('message_id') as id \gset
\set broker random(1, 2)
begin;
insert into expected values (:id, :broker, 'commit');
select amqp.publish(:broker, 'demo', 'commit', :id::text);
commit;
`},
		{"several", 2, `
select nextval('message_id') as a, nextval('message_id') as b, nextval('message_id') as c \gset
begin;
insert into expected values (:a, 1, 'several'), (:b, 2, 'several'), (:c, 1, 'several');
select amqp.publish(1, 'demo', 'several', :a::text), amqp.publish(2, 'demo', 'several', :b::text);
select amqp.publish(1, 'demo', 'several', :c::text);
commit;
`},
		{"rollback", 2, `
select nextval('message_id') as id \gset
\set broker random(1, 2)
begin;
insert into expected values (:id, :broker, 'rollback');
select amqp.publish(:broker, 'demo', 'rollback', :id::text);
rollback;
`},
		{"savepoint", 2, `
select nextval('message_id') as a, nextval('message_id') as b, nextval('message_id') as c \gset
\set broker random(1, 2)
begin;
insert into expected values (:a, :broker, 'savepoint');
select amqp.publish(:broker, 'demo', 'savepoint', :a::text);
savepoint s;
insert into expected values (:b, :broker, 'savepoint');
select amqp.publish(:broker, 'demo', 'savepoint', :b::text);
rollback to savepoint s;
insert into expected values (:c, :broker, 'savepoint');
select amqp.publish(:broker, 'demo', 'savepoint', :c::text);
commit;
`},
		{"autonomous", 1, `
select nextval('message_id') as id \gset
\set broker random(1, 2)
insert into expected values (:id, :broker, 'autonomous');
begin;
select amqp.autonomous_publish(:broker, 'demo', 'autonomous', :id::text);
rollback;
`},
	}
}
