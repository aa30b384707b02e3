package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// The oldest transaction that has written, of the whole cluster: its age is counted in
// transactions, because when it began is shown to superusers and its own role only.
const oldestQuery = `
select case when t.pid is null then pg_catalog.format('prepared transaction %L in database %s', t.gid, t.database)
            else pg_catalog.format('session %s of role %s in database %s', t.pid, t.role, t.database) end
       || coalesce(', begun ' || pg_catalog.date_trunc('second', t.began)::text, ''),
       case when t.pid is null then pg_catalog.format('in database %s: commit prepared %L; or rollback prepared %L;', t.database, t.gid, t.gid)
            else pg_catalog.format('select pg_terminate_backend(%s);', t.pid) end
  from (select a.pid, null as gid, a.usename::text as role, a.datname::text as database, a.backend_xid as xid, a.xact_start as began
          from pg_catalog.pg_stat_activity a where a.backend_xid is not null
        union all
        select null, p.gid, p.owner::text, p.database::text, p.transaction, p.prepared from pg_catalog.pg_prepared_xacts p) t
 order by pg_catalog.age(t.xid) desc limit 1`

// OldestTransaction describes the oldest open transaction that has written something, in
// any database: the server keeps all WAL since its start. It is empty if there is none.
func OldestTransaction(ctx context.Context, conn *pgx.Conn) (string, error) {
	what, _, err := oldestTransaction(ctx, conn)
	return what, err
}

// oldestTransaction returns how to end it, too.
func oldestTransaction(ctx context.Context, conn *pgx.Conn) (what, end string, err error) {
	err = conn.QueryRow(ctx, oldestQuery).Scan(&what, &end)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", "", fmt.Errorf("look for the oldest transaction: %w", err)
	}
	return what, end, nil
}
