package catalog

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// oldBroker is a row of amqp.broker with the columns that pg_amqp has had since 0.4.2. It names files on the database server.
type oldBroker struct {
	id                         int32
	host                       string
	port                       int32
	requireTLS                 bool
	verifyCert, verifyCN       bool
	cert, key, keyPassword, ca string
}

// migrateBrokers gives the columns of pgamqp what those of pg_amqp say, as far as that can be, and names the rest. The
// old columns stay as they are.
func migrateBrokers(ctx context.Context, c *changes, columns []string, report *MigrateReport) error {
	// A password is a reference here, if it looks like one.
	if err := c.exec(ctx, `update amqp.broker set password = 'literal:' || password where password ~ '^(file|env|literal):'`); err != nil {
		return err
	}
	if !slices.Contains(columns, "requiressl") {
		return nil
	}
	rows, err := c.tx.Query(ctx, `
		select broker_id, coalesce(host, 'localhost'), coalesce(port, 5672), coalesce(requiressl, false), coalesce(verify_cert, true), coalesce(verify_cn, true),
		       coalesce(cert, ''), coalesce(key, ''), coalesce(key_password, ''), coalesce(ca, '')
		  from amqp.broker order by 1, 2, 3`)
	if err != nil {
		return fmt.Errorf("read amqp.broker: %w", err)
	}
	brokers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b oldBroker, err error) {
		return b, row.Scan(&b.id, &b.host, &b.port, &b.requireTLS, &b.verifyCert, &b.verifyCN, &b.cert, &b.key, &b.keyPassword, &b.ca)
	})
	if err != nil {
		return fmt.Errorf("read amqp.broker: %w", err)
	}
	files := secretFiles{}
	for _, b := range brokers {
		where := fmt.Sprintf("broker %d, %s", b.id, net.JoinHostPort(b.host, strconv.Itoa(int(b.port))))
		var set []string
		if b.requireTLS {
			set = append(set, "tls = true")
		}
		for _, column := range []struct{ name, value string }{{"tls_ca", b.ca}, {"tls_cert", b.cert}, {"tls_key", b.key}} {
			if column.value == "" {
				continue
			}
			reference, copied := files.reference(column.value)
			set = append(set, fmt.Sprintf("%s = coalesce(%s, %s)", column.name, column.name, sql.Literal(reference)))
			if copied {
				report.todo("%s: copy %s of the database server to %s in secrets_dir of the daemon", where, column.value, strings.TrimPrefix(reference, "file:"))
			}
		}
		if len(set) > 0 {
			statement := fmt.Sprintf("update amqp.broker set %s where broker_id = %d and host = %s and port = %d", strings.Join(set, ", "), b.id, sql.Literal(b.host), b.port)
			if err := c.exec(ctx, statement); err != nil {
				return err
			}
			report.done("%s: its columns for TLS are taken over", where)
		}
		b.cannot(where, report)
	}
	return nil
}

// cannot names what pgamqp does otherwise.
func (b oldBroker) cannot(where string, report *MigrateReport) {
	if !b.requireTLS {
		if b.ca+b.cert+b.key != "" {
			report.todo("%s: requiressl is not set, with which pg_amqp used TLS if it could; pgamqp never chooses: set tls to true if this port speaks TLS", where)
		}
		return
	}
	if !b.verifyCert {
		report.todo("%s: verify_cert is false, and pgamqp checks every certificate: put the authority, or the certificate itself, into tls_ca", where)
	}
	if !b.verifyCN {
		report.todo("%s: verify_cn is false, and pgamqp compares names: put the name that the certificate holds into tls_server_name", where)
	}
	if b.keyPassword != "" {
		report.todo("%s: key_password is set, and pgamqp reads keys that have none: openssl pkey -in KEY -out NEW_KEY", where)
	}
}

// secretFiles gives each path on the database server a name in secrets_dir.
type secretFiles map[string]string // name to path

// reference returns what to write for a value: itself, if it holds the PEM text or refers to something already.
func (f secretFiles) reference(value string) (reference string, copied bool) {
	if strings.Contains(value, "-----BEGIN") || strings.HasPrefix(value, "file:") || strings.HasPrefix(value, "env:") {
		return value, false
	}
	base := path.Base(value)
	name := base
	for n := 2; f[name] != "" && f[name] != value; n++ {
		name = strconv.Itoa(n) + "-" + base
	}
	f[name] = value
	return "file:" + name, true
}
