package catalog

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// server is what the checks need to know of the server and of the role that asks.
type server struct {
	version     int // server_version_num
	versionName string
	walLevel    string
	inRecovery  bool
	walEnd      string // empty in recovery
	timeline    int    // 0 in recovery
	maxSlots    int
	usedSlots   int
	database    string
	role        string
	superuser   bool
	// replication is the attribute, or membership in the role that stands for it in RDS.
	replication bool
	onRDS       bool
	// idleTimeout is idle_replication_slot_timeout of PostgreSQL 18, in its own words.
	idleTimeout string
}

// The walsender is judged by the role that logs in, so this asks for session_user.
const serverQuery = `
select pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.current_setting('server_version'),
       pg_catalog.current_setting('wal_level'),
       pg_catalog.pg_is_in_recovery(),
       case when pg_catalog.pg_is_in_recovery() then '' else pg_catalog.pg_current_wal_lsn()::text end,
       case when pg_catalog.pg_is_in_recovery() then 0
            else ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int end,
       pg_catalog.current_setting('max_replication_slots')::int,
       (select count(*) from pg_catalog.pg_replication_slots)::int,
       pg_catalog.current_database()::text,
       r.rolname::text,
       r.rolsuper,
       r.rolsuper or r.rolreplication or coalesce(
         (select pg_catalog.pg_has_role(session_user, g.oid, 'member') from pg_catalog.pg_roles g where g.rolname = 'rds_replication'), false),
       exists (select from pg_catalog.pg_roles g where g.rolname = 'rds_replication'),
       coalesce((select s.setting || coalesce(s.unit, '') from pg_catalog.pg_settings s
                  where s.name = 'idle_replication_slot_timeout' and s.setting <> '0'), '')
  from pg_catalog.pg_roles r
 where r.rolname = session_user`

func readServer(ctx context.Context, conn *pgx.Conn) (server, error) {
	var s server
	err := conn.QueryRow(ctx, serverQuery).Scan(&s.version, &s.versionName, &s.walLevel, &s.inRecovery, &s.walEnd, &s.timeline,
		&s.maxSlots, &s.usedSlots, &s.database, &s.role, &s.superuser, &s.replication, &s.onRDS, &s.idleTimeout)
	if err != nil {
		return s, fmt.Errorf("read settings of the server: %w", err)
	}
	return s, nil
}

// check finds what no command of ours can do without.
func (s server) check(found *problems) {
	if s.version < 140000 {
		found.add(fmt.Sprintf("the server is PostgreSQL %s", s.versionName), "use PostgreSQL 14 or later")
	}
	if s.inRecovery {
		found.add("the server is a standby (it is in recovery)",
			"connect to the primary; with several hosts in the database URL add target_session_attrs=read-write")
	}
	if s.walLevel != "logical" {
		fix := "alter system set wal_level = 'logical'; and restart PostgreSQL"
		if s.onRDS {
			fix = "set rds.logical_replication = 1 in the parameter group and reboot the instance"
		}
		found.add(fmt.Sprintf("wal_level is %s, logical decoding needs logical", s.walLevel), fix)
	}
	if !s.replication {
		fix := fmt.Sprintf("alter role %s replication;", quote(s.role))
		if s.onRDS {
			fix = fmt.Sprintf("grant rds_replication to %s;", quote(s.role))
		}
		found.add(fmt.Sprintf("role %q may not use replication slots", s.role), fix)
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// checkNames judges names before they are used; empty ones stand for the installed ones.
func checkNames(found *problems, slot, publication string) {
	if slot != "" && !slotName.MatchString(slot) {
		found.add(fmt.Sprintf("%q cannot be the name of a slot", slot),
			"use 1 to 63 lower-case letters, digits and underscores")
	}
	// PostgreSQL cuts a longer name; it would be created under another name than is asked for.
	if len(publication) > 63 {
		found.add(fmt.Sprintf("the name of the publication has %d bytes", len(publication)), "use at most 63 bytes")
	}
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }
