-- The tables, and what a repeated or a newer installation must know.

create table if not exists amqp.installation (
  one_row boolean primary key default true check (one_row),
  version integer not null,
  slot_name text not null,
  publication_name text not null,
  -- One-time steps that are done. A step that failed for want of a privilege is not
  -- in here and is tried again; one that is done is never repeated, so that a later
  -- installation does not undo what an administrator has granted since.
  steps text[] not null default '{}',
  installed_at timestamptz not null default now(),
  upgraded_at timestamptz
);
comment on table amqp.installation is 'version of schema amqp; which slot and publication belong to it';

do $$
declare
  newest constant integer := 5; -- the same number as in version.sql and sql.go
  installed integer := (select i.version from amqp.installation i);
begin
  if installed > newest then
    raise exception 'schema amqp has version % here, this program knows versions up to %', installed, newest
      using errcode = '55000', hint = 'Use a pgamqp that is at least as new as the one that installed it.';
  end if;
end
$$;

-- A table of pg_amqp is kept with its rows: that is all its users have configured. What
-- pgamqp adds to its columns follows below.
create table if not exists amqp.broker (
  broker_id serial not null,
  host text not null,
  port integer not null default 5672,
  vhost text,
  username text,
  password text,
  primary key (broker_id, host, port)
);
do $$
begin
  if (select c.relkind from pg_class c where c.oid = 'amqp.broker'::regclass) not in ('r', 'p') then
    raise exception 'amqp.broker exists and is not a table'
      using errcode = '42809', hint = 'Rename it; pgamqp reads its brokers from a table of this name.';
  end if;
end
$$;
-- Columns that a new table lacks, one of pg_amqp, or one of an earlier version. A failing ADD COLUMN IF NOT EXISTS
-- would still take an exclusive lock: look first.
do $$
declare
  added record;
begin
  for added in
    select c.name, c.definition from (values
      (1, 'tls', $c$boolean not null default false$c$),
      (2, 'tls_ca', 'text'), (2, 'tls_cert', 'text'), (2, 'tls_key', 'text'), (2, 'tls_server_name', 'text'),
      (3, 'auth', $c$text not null default 'plain' constraint broker_auth_is_possible check (auth = 'plain' or auth = 'external' and tls and tls_cert is not null)$c$),
      (4, 'on_reject', $c$text not null default 'dead_letter' check (on_reject in ('dead_letter', 'hold', 'drop'))$c$),
      (5, 'retry_timeout', $c$interval check (retry_timeout >= interval '0')$c$)) c(step, name, definition)
     where not exists (select from pg_attribute a where a.attrelid = 'amqp.broker'::regclass
                         and a.attname = c.name and not a.attisdropped)
     order by c.step, c.name -- the check of auth is about others
  loop
    execute format('alter table amqp.broker add column %I %s', added.name, added.definition);
  end loop;
end
$$;
comment on table amqp.broker is
  'RabbitMQ servers; several rows with one broker_id are hosts of one broker, tried in turn';
comment on column amqp.broker.vhost is 'NULL is /';
comment on column amqp.broker.username is 'NULL is guest';
comment on column amqp.broker.password is
  'NULL is guest; file:NAME is the content of a file in secrets_dir of the daemon, env:PGAMQP_SECRET_NAME that of a variable, literal:TEXT is TEXT';
comment on column amqp.broker.tls_ca is
  'certificates of who may have signed the one of the broker, in PEM form or as file:NAME; NULL is whoever the system of the daemon trusts';
comment on column amqp.broker.tls_cert is 'certificate to show to the broker, with its chain, in PEM form or as file:NAME';
comment on column amqp.broker.tls_key is 'its private key, in PEM form, or rather as file:NAME';
comment on column amqp.broker.tls_server_name is 'name that the certificate of the broker must hold; NULL is host';
comment on column amqp.broker.auth is 'plain: by username and password; external: by tls_cert (RabbitMQ needs the plugin rabbitmq_auth_mechanism_ssl)';
comment on column amqp.broker.on_reject is
  'what becomes of a message that the broker will not take: dead_letter stores it, hold tries it until it is taken and keeps all behind it waiting, drop throws it away. If the rows of one broker_id differ, hold counts before dead_letter before drop';
comment on column amqp.broker.retry_timeout is
  'how long a message that the broker could not store (nack) is tried again before on_reject applies; NULL is nack_retry_timeout of the daemon. If the rows of one broker_id differ, the longest counts';

create table if not exists amqp.dead_letter (
  id bigint generated always as identity primary key,
  origin text not null unique,
  lsn pg_lsn not null,
  broker_id integer,
  kind text not null,
  reason text not null,
  reply_code integer,
  reply_text text,
  message_id text,
  exchange text,
  routing_key text,
  properties jsonb,
  headers jsonb,
  role text,
  head bytea not null,
  body bytea not null,
  attempts integer not null default 1,
  first_failed_at timestamptz not null default now(),
  last_failed_at timestamptz not null default now()
);
comment on table amqp.dead_letter is
  'messages that the broker did not take, with the reason; amqp.redeliver(id) sends one again';
comment on column amqp.dead_letter.origin is 'the id that the message was first sent with';
comment on column amqp.dead_letter.head is 'head || body is the envelope as it was in the WAL';
