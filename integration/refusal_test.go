package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// The exit codes that `pgamqp --help` lists.
const (
	exitFailure      = 1
	exitUsage        = 2
	exitPrecondition = 3
	exitSlotLost     = 4
	exitSlotGone     = 5
	exitOtherSystem  = 6
	exitPublication  = 7
)

// refused runs a command that must end by itself with a code, and whose output must match
// all patterns: the cause and what to do.
func refused(t *testing.T, code int, args []string, patterns ...string) {
	t.Helper()
	got, out := pgamqp(t, args...)
	if got != code {
		t.Errorf("pgamqp %v: exit code %d, want %d\n%s", args, got, code, out)
	}
	plain := strings.NewReplacer(`\"`, `"`, `\n`, "\n").Replace(out) // a log line quotes them
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(plain) {
			t.Errorf("pgamqp %v: the output does not match %q\n%s", args, p, out)
		}
	}
	if strings.Contains(out, "goroutine ") {
		t.Errorf("pgamqp %v: the output is a stack\n%s", args, out)
	}
}

// refuseRun is what `pgamqp run` must say; more arguments win over the world's own.
func (w *world) refuseRun(code int, args []string, patterns ...string) {
	w.t.Helper()
	all := []string{"run", "--database-url", w.url(), "--slot", w.slot, "--listen", "127.0.0.1:0"}
	refused(w.t, code, append(all, args...), patterns...)
}

// refuseInstall is the same for `pgamqp install`.
func (w *world) refuseInstall(code int, args []string, patterns ...string) {
	w.t.Helper()
	refused(w.t, code, append([]string{"install", "--database-url", w.url(), "--slot", w.slot}, args...), patterns...)
}

func TestSlotThatIsNotOursIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	other := newWorld(t, worldOptions{})
	slot := func(kind, create string) string {
		name := w.slot + "_" + kind
		w.exec(`select ` + strings.ReplaceAll(create, "$name", "'"+name+"'"))
		return name
	}
	decoding := slot("decoding", `pg_create_logical_replication_slot($name, 'test_decoding')`)
	twoPhase := slot("two_phase", `pg_create_logical_replication_slot($name, 'pgoutput', false, true)`)
	physical := slot("physical", `pg_create_physical_replication_slot($name)`)
	t.Cleanup(func() { w.exec(`select pg_drop_replication_slot($1)`, physical) }) // it belongs to no database
	for _, c := range []struct{ slot, cause, fix string }{
		{decoding, `slot "` + decoding + `" was created for plugin test_decoding, not pgoutput`, `fix: .*--slot`},
		{twoPhase, `slot "` + twoPhase + `" decodes prepared transactions before they are committed \(two_phase\)`, `fix: .*--slot`},
		{physical, `slot "` + physical + `" is a physical slot, not a logical one`, `fix: .*--slot`},
		{other.slot, `slot "` + other.slot + `" belongs to database "` + other.database + `", this is "` + w.database + `"`, `fix: connect to that database`},
	} {
		w.refuseRun(exitPrecondition, []string{"--slot", c.slot}, c.cause, c.fix)
		w.refuseInstall(exitPrecondition, []string{"--slot", c.slot}, c.cause, c.fix)
	}
	w.refuseRun(exitPrecondition, []string{"--slot", "no_such_slot"}, `slot "no_such_slot" does not exist; pgamqp is installed with slot "`+w.slot+`"`, `fix: give --slot `+w.slot)
	for _, refuse := range []func(int, []string, ...string){w.refuseRun, w.refuseInstall} {
		refuse(exitUsage, []string{"--slot", "Bad-Name"}, `slot: .*"Bad-Name" cannot name a slot: write 1 to 63 characters out of a-z, 0-9 and _`)
	}
	// Nothing of this has changed the installation.
	w.queue(1, "q")
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
}

func TestP21MissingPublicationIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.refuseRun(exitPrecondition, []string{"--publication", "no_such"}, `publication "no_such" does not exist; pgamqp is installed with publication "pgamqp"`, `fix: give --publication pgamqp`)
	w.exec(`drop publication pgamqp`)
	w.refuseRun(exitPublication, nil, `publication "pgamqp" does not exist`, `fix: run "pgamqp install"`)
	// Nothing has changed a row meanwhile, so that the slot is not stuck.
	w.exec(`create publication pgamqp`)
	w.start()
}

func TestDatabaseWithoutInstallationIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{bare: true})
	// All that is missing, at once.
	w.refuseRun(exitPrecondition, nil,
		`schema amqp is not installed in database "`+w.database+`"`, `publication "pgamqp" does not exist`,
		`slot "`+w.slot+`" does not exist`, `run "pgamqp install"`)
	w.refuseRun(exitPrecondition, []string{"--database-url", w.postgres.URL("no_such_database")}, `database "no_such_database" does not exist`)
	w.install()
	w.exec(`update amqp.installation set version = 99`)
	w.refuseRun(exitPrecondition, nil, `schema amqp has version 99, this program knows versions up to \d+`, `fix: use a pgamqp that is at least as new`)
	w.refuseInstall(exitPrecondition, nil, `schema amqp has version 99`)
}

func TestRoleWithoutPrivilegesIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	role := w.database + "_daemon"
	w.exec(`create role ` + role + ` login`)
	t.Cleanup(func() { w.exec(`drop role ` + role) })
	as := []string{"--database-url", w.urlAs(role)}
	w.refuseRun(exitPrecondition, as,
		`role "`+role+`" may not use replication slots`, `fix: alter role "`+role+`" replication;`,
		`role "`+role+`" may not read amqp.broker`, `fix: grant pgamqp_daemon to "`+role+`";`)
	empty := newWorld(t, worldOptions{bare: true})
	empty.refuseInstall(exitPrecondition, []string{"--database-url", empty.urlAs(role)}, `fix: alter role "`+role+`" replication;`)

	// What it says is what to do.
	w.exec(`alter role "` + role + `" replication`)
	w.refuseRun(exitPrecondition, as, `fix: grant pgamqp_daemon to "`+role+`";`)
	w.exec(`grant pgamqp_daemon to "` + role + `"`)
	d := w.start(as...)
	w.exec(`select amqp.publish(1, '', 'q', 'a'), amqp.publish(1, '', 'no queue', 'b')`)
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
	if n := w.deadLetters(); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestP52ServerWithoutLogicalDecodingIsRefused(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: p})
	// A server with a logical slot does not start with less.
	w.exec(`select pg_drop_replication_slot($1)`, w.slot)
	w.exec(`alter system set wal_level = 'replica'`)
	if err := p.Restart(testserver.Fast); err != nil {
		t.Fatal(err)
	}
	const problem, fix = `wal_level is replica, logical decoding needs logical`, `alter system set wal_level = 'logical'; and restart`
	w.refuseRun(exitSlotGone, nil, problem, fix) // the graver of the two problems decides on the code
	w.refuseInstall(exitPrecondition, nil, problem, fix)
	w.exec(`alter system set wal_level = 'logical'`)
	if err := p.Restart(testserver.Fast); err != nil {
		t.Fatal(err)
	}
	w.install()
	w.start()
}

func TestP53ServerWithoutAFreeSlotIsRefused(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_replication_slots": "1"}})
	newWorld(t, worldOptions{postgres: p})
	w := newWorld(t, worldOptions{postgres: p, bare: true})
	w.refuseInstall(exitPrecondition, nil, `all 1 replication slots of the server are in use`, `fix: alter system set max_replication_slots = \d+; and restart`)
	if value[bool](w, `select to_regnamespace('amqp') is not null`) {
		t.Error("the installation that was refused has left a schema")
	}
}

func TestP51DaemonIsNoSynchronousStandby(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: p})
	w.exec(`alter system set synchronous_standby_names = '*'`)
	w.exec(`select pg_reload_conf()`)
	await(t, startLimit, "the setting is in effect", func() bool {
		return value[string](w, `show synchronous_standby_names`) == "*"
	})
	w.refuseRun(exitPrecondition, nil, `synchronous standby: every commit would wait for RabbitMQ`, `synchronous_standby_names instead of \*, and reload`)
	w.exec(`alter system set synchronous_standby_names = 'a, b'`)
	w.exec(`select pg_reload_conf()`)
	await(t, startLimit, "the setting is in effect", func() bool {
		return value[string](w, `show synchronous_standby_names`) == "a, b"
	})
	w.start()
}

func TestMistakesInTheConfigurationAreToldAtOnce(t *testing.T) {
	t.Parallel()
	refused(t, exitUsage, []string{"run", "--slot", "A", "--window-bytes", "7 apples", "--heartbeat-interval", "1ms", "--log-level", "loud"},
		`slot: `, `window_bytes: `, `heartbeat_interval: `, `log_level: `)
	refused(t, exitUsage, []string{"run", "--no-such-flag"}, `--no-such-flag`)
	refused(t, exitUsage, []string{"publish"}, `unknown command`)
	w := newWorld(t, worldOptions{})
	d := w.start()
	w.refuseRun(exitUsage, []string{"--listen", d.address()}, `another process uses the port`, `--listen`)
	refused(t, exitFailure, []string{"install", "--database-url", fmt.Sprintf("postgres://a:"+userPassword+"@127.0.0.1:%d/b", closedPort(t))}, `connect to PostgreSQL`)
}

func TestDaemonThatCannotReachPostgresStopsWhenAsked(t *testing.T) {
	t.Parallel()
	d := launch(t, "run", "--listen", "127.0.0.1:0", "--database-url", fmt.Sprintf("postgres://a:"+userPassword+"@127.0.0.1:%d/b", closedPort(t)))
	d.waitLog("cannot check the database, trying again")
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
