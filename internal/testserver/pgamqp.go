package testserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"
)

// PgAMQP returns a script that creates what the extension pg_amqp 0.4.2 consists of, but for schema amqp. Its functions
// come from a library of the name of pg_amqp's and do nothing: they return false, as those do when no broker answers.
func (p *Postgres) PgAMQP(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	var libraries string
	if err := conn.QueryRow(ctx, `select setting from pg_config where name = 'PKGLIBDIR'`).Scan(&libraries); err != nil {
		return "", err
	}
	library := filepath.Join(p.folder, "pg_amqp.so")
	if _, err := os.Stat(library); err != nil { // never write over one that a session has loaded
		// It has a function that looks at no argument and returns a boolean: whether the session uses TLS.
		content, err := os.ReadFile(filepath.Join(libraries, "sslinfo.so"))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(library+".new", content, 0o755); err != nil {
			return "", err
		}
		if err := os.Rename(library+".new", library); err != nil {
			return "", err
		}
	}
	function := func(name, arguments, returns, volatility string) string {
		return fmt.Sprintf("create function amqp.%s(%s) returns %s as '%s', 'ssl_is_used' language c %s;\n", name, arguments, returns, library, volatility)
	}
	const message = `broker_id integer, exchange varchar, routing_key varchar, message varchar, delivery_mode integer default null,
	content_type varchar default null, reply_to varchar default null, correlation_id varchar default null`
	return `create table amqp.broker (broker_id serial not null, host text not null, port integer not null default 5672, vhost text, username text, password text,
	requiressl boolean default false, verify_cert boolean default true, verify_cn boolean default true, cert text, key text, key_password varchar, ca text,
	primary key (broker_id, host, port));
` + function("publish", message+`, headers varchar[] default null`, "boolean", "immutable") +
		function("autonomous_publish", message, "boolean", "immutable") +
		function("disconnect", "broker_id integer", "void", "immutable strict") +
		function("exchange_declare", "broker_id integer, exchange varchar, exchange_type varchar, passive boolean, durable boolean, auto_delete boolean default false", "boolean", "immutable") +
		"comment on function amqp.disconnect(integer) is 'closes the connection';\n", nil
}
