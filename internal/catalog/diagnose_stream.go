package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// diagnoseStream looks at what streaming needs beyond what can be asked in SQL, and at what becomes of the slot when
// the server is replaced or its disk is full.
func diagnoseStream(ctx context.Context, conn *pgx.Conn, s server, slot string, d *Diagnosis) error {
	status, err := ReadSlot(ctx, conn, slot)
	if err != nil && !errors.Is(err, ErrNoSlot) {
		return err
	}
	err = openReplication(ctx, conn.Config(), s.database)
	switch {
	case err == nil:
		d.Add(LevelOK, "replication", "a replication connection to this database is let through", "")
	case status.Active && hasCode(err, codeTooManyConnections): // the daemon's own is the last one
	default:
		d.Add(LevelError, "replication", "open a replication connection: "+describe(err).Error(), fixOfReplication(err, s))
	}
	var names, application, keep string
	var standbys int
	err = conn.QueryRow(ctx, `
		select pg_catalog.current_setting('synchronous_standby_names'), pg_catalog.current_setting('application_name'),
		       pg_catalog.current_setting('max_slot_wal_keep_size'),
		       (select pg_catalog.count(*) from pg_catalog.pg_replication_slots r where r.slot_type = 'physical')::int`).
		Scan(&names, &application, &keep, &standbys)
	if err != nil {
		return fmt.Errorf("read settings of the server: %w", err)
	}
	switch synchronous(names, cmp.Or(application, "pgamqp")) {
	case always:
		d.Add(LevelError, "server", fmt.Sprintf("synchronous_standby_names is %q, which takes the daemon for a synchronous standby: every commit would wait for RabbitMQ, and it refuses to run", names),
			"alter system set synchronous_standby_names = '...'; with the names of the real standbys; select pg_reload_conf();")
	case perhaps:
		d.Add(LevelWarning, "server", fmt.Sprintf("synchronous_standby_names is %q, which takes the daemon for a synchronous standby when others are away: every commit would wait for RabbitMQ then", names),
			"alter system set synchronous_standby_names = '...'; with the names of the real standbys; select pg_reload_conf();")
	}
	if status.Type != "logical" || status.Lost() {
		return nil // it is not there, or good for nothing: a finding already
	}
	if s.version >= 170000 && !status.Failover && standbys > 0 {
		d.Add(LevelWarning, "slot", fmt.Sprintf("slot %q is no failover slot, and there are standbys: one that is promoted will not have it, and what is not confirmed then is lost", slot),
			fmt.Sprintf(`stop the daemon, then: psql "dbname=%s replication=database" -c 'ALTER_REPLICATION_SLOT %s (FAILOVER true)'`, s.database, quote(slot)))
	}
	if keep == "-1" {
		d.Add(LevelOK, "slot", "WAL is kept for the slot without a limit: max_slot_wal_keep_size is -1, so a daemon or broker that is down for long fills the disk",
			"watch pgamqp_slot_retained_wal_bytes; a limit loses the slot instead: alter system set max_slot_wal_keep_size = '100GB'; select pg_reload_conf();")
	}
	return nil
}

// openReplication connects as the daemon's stream does, and asks who answers.
func openReplication(ctx context.Context, c *pgx.ConnConfig, database string) error {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	config := c.Config.Copy()
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err == nil && system.DBName != database {
		err = fmt.Errorf("it is for database %q, not for %q", system.DBName, database)
	}
	return err
}

// fixOfReplication says what lets through a replication connection where others get through.
func fixOfReplication(err error, s server) string {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok && e.Code == codeTooManyConnections:
		return "alter system set max_wal_senders = 10; and restart PostgreSQL; or end a walsender that nobody needs"
	case ok && e.Code == codeInsufficientPrivilege:
		return fmt.Sprintf("alter role %s replication;", quote(s.role))
	case ok && e.Code == codeInvalidAuthorization:
		return fmt.Sprintf("pg_hba.conf: a line for database %q (replication as a name means physical replication) and role %q; then select pg_reload_conf();", s.database, s.role)
	}
	return "connect to PostgreSQL itself: a pooler does not pass on replication connections"
}

// chosen is whether a server takes somebody for a synchronous standby.
type chosen int

const (
	never   chosen = iota
	perhaps        // if those before it are not there
	always
)

var (
	listOfNames = regexp.MustCompile(`(?is)^\s*(?:(any|first)\s+)?(\d+)\s*\((.*)\)\s*$`)
	oneName     = regexp.MustCompile(`"(?:[^"]|"")*"|[^\s,"]+`)
)

// synchronous reads synchronous_standby_names as PostgreSQL does: a list of names, with how many of them are waited for
// in front, the first ones (of 1 without it) or any.
func synchronous(names, application string) chosen {
	count, anyOf := 1, false
	if m := listOfNames.FindStringSubmatch(names); m != nil {
		anyOf = strings.EqualFold(m[1], "any")
		count, _ = strconv.Atoi(m[2])
		names = m[3]
	}
	for i, name := range oneName.FindAllString(names, -1) {
		if unquoted, found := strings.CutPrefix(name, `"`); found {
			name = strings.ReplaceAll(strings.TrimSuffix(unquoted, `"`), `""`, `"`)
		}
		switch {
		case name != "*" && !strings.EqualFold(name, application):
		case anyOf || i < count:
			return always
		default:
			return perhaps
		}
	}
	return never
}
