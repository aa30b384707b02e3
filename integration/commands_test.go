package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// command runs the program against the world's database and, if there is one, its daemon, and returns what it printed.
func (w *world) command(d *daemon, code int, args ...string) string {
	w.t.Helper()
	args = append(args, "--database-url", w.url())
	switch {
	case args[0] != "status" && args[0] != "doctor":
	case d != nil:
		args = append(args, "--slot", w.slot, "--listen", d.address())
	default:
		args = append(args, "--slot", w.slot, "--listen", fmt.Sprintf("127.0.0.1:%d", closedPort(w.t)))
	}
	got, output := pgamqp(w.t, args...)
	if got != code {
		w.t.Fatalf("pgamqp %q ends with code %d, want %d:\n%s", args, got, code, output)
	}
	return output
}

// decode reads the JSON that a command printed; behind it there may be its error.
func decode[T any](t *testing.T, output string) (value T) {
	t.Helper()
	if err := json.NewDecoder(strings.NewReader(output)).Decode(&value); err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	return value
}

func wantMatch(t *testing.T, output string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(output) {
			t.Errorf("no match for %q in:\n%s", p, output)
		}
	}
}

// statusJSON is what scripts rely on.
type statusJSON struct {
	Slots []struct {
		Name, State string
		LagBytes    *int64   `json:"lag_bytes"`
		LagSeconds  *float64 `json:"lag_seconds"`
	}
	Brokers []struct {
		BrokerID    int `json:"broker_id"`
		State       string
		DeadLetters int                `json:"dead_letters"`
		Counters    map[string]any     `json:"counters"`
		Rate        map[string]float64 `json:"rate"`
	}
	Daemon      *struct{ State, Version string }
	DaemonError string `json:"daemon_error"`
}

func TestStatusShowsTheWholePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, closedPort(t))
	d := w.start("--detach-after", "1s")
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 50) n`)
	w.exec(`select amqp.publish(1, '', 'nowhere', 'bad')`)
	w.waitDelivered()
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`)
	await(t, time.Minute, "broker 2 is detached", func() bool {
		w.exec(`select amqp.publish(1, '', 'q', 'more')`)
		return w.ownSlots() == 1
	})
	s := decode[statusJSON](t, w.command(d, 0, "status", "--json", "--interval", "100ms"))
	if len(s.Slots) != 2 || s.Slots[0].Name != w.slot || s.Slots[0].State != "streaming" || s.Slots[0].LagBytes == nil || s.Slots[0].LagSeconds == nil || s.Slots[1].Name != w.slot+"_broker_2" {
		t.Errorf("slots %+v", s.Slots)
	}
	if own := s.Slots[1].LagSeconds; own == nil || *own <= 0 {
		t.Errorf("the detached broker's slot is %v seconds behind", own)
	}
	if s.Daemon == nil || s.Daemon.State != "streaming" || s.Daemon.Version == "" {
		t.Errorf("daemon %+v, %s", s.Daemon, s.DaemonError)
	}
	if len(s.Brokers) != 2 {
		t.Fatalf("brokers %+v", s.Brokers)
	}
	if b := s.Brokers[0]; b.State != "connected" || b.DeadLetters != 1 || b.Counters["confirmed_messages"].(float64) < 51 || b.Rate == nil {
		t.Errorf("broker 1: %+v", b)
	}
	if b := s.Brokers[1]; b.State != "detached_disconnected" {
		t.Errorf("broker 2: %+v", b)
	}
	wantMatch(t, w.command(d, 0, "status"),
		`(?m)^daemon: streaming, version \S+, oldest unconfirmed commit `,
		`(?m)^`+w.slot+` +streaming +\d`,
		`(?m)^1 +127\.0\.0\.1:\d+ +connected +\d+/2048 +\d+ .* 1$`,
		`(?m)^2 +127\.0\.0\.1:\d+ +detached, disconnected `,
		`(?m)^1 +1 +unroutable +\d\S* ago$`)
	// A monitor sees the same, and needs no more.
	monitor := w.database + "_monitor"
	w.exec(`create role ` + monitor + ` login password '` + rolePassword + `' in role pgamqp_monitor`)
	code, seen := pgamqp(t, "status", "--database-url", w.urlAs(monitor), "--slot", w.slot, "--listen", d.address())
	if code != 0 {
		t.Errorf("as a monitor: exit code %d", code)
	}
	wantMatch(t, seen, `(?m)^`+w.slot+` +streaming `, `(?m)^1 +127\.0\.0\.1:\d+ +connected`, `(?m)^1 +1 +unroutable`)
	d.kill()
	await(t, startLimit, "the slot is free", func() bool {
		return value[bool](w, `select not active from pg_replication_slots where slot_name = $1`, w.slot)
	})
	s = decode[statusJSON](t, w.command(nil, 0, "status", "--json", "--interval", "100ms"))
	if s.Daemon != nil || !strings.Contains(s.DaemonError, "connection refused") || s.Slots[0].State != "unread" {
		t.Errorf("without a daemon: %+v", s)
	}
}

func TestDeadLettersAreListedShownSentAgainAndRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	w.exec(`select amqp.publish(1, '', 'later', 'body ' || n) from generate_series(1, 5) n`)
	w.exec(`select amqp.publish(1, 'missing', 'k', E'\\x00ff'::bytea)`)
	w.waitDelivered()
	all := w.letters()
	id := func(i int) string { return fmt.Sprint(all[i].ID) }

	type listed struct {
		ID        int64
		Reason    string
		BodyBytes int64 `json:"body_bytes"`
	}
	list := decode[[]listed](t, w.command(nil, 0, "dead-letters", "list", "--json"))
	if len(list) != 6 || list[0].ID != all[0].ID || list[0].Reason != "unroutable" || list[0].BodyBytes != 6 || list[5].Reason != "not_found" {
		t.Errorf("listed %+v", list)
	}
	wantMatch(t, w.command(nil, 0, "dead-letters", "list", "--limit", "2", "--after", id(0)),
		`(?m)^`+id(1)+` .* unroutable +\(default\) +later +6 +312 NO_ROUTE$`, `(?m)^3 more: --after `+id(2)+`$`)
	if list := decode[[]listed](t, w.command(nil, 0, "dead-letters", "list", "--json", "--exchange", "missing")); len(list) != 1 || list[0].ID != all[5].ID {
		t.Errorf("to exchange missing: %+v", list)
	}
	if list := decode[[]listed](t, w.command(nil, 0, "dead-letters", "list", "--json", "--older-than", "1h")); len(list) != 0 {
		t.Errorf("older than an hour: %+v", list)
	}
	wantMatch(t, w.command(nil, 0, "dead-letters", "show", id(0)), `(?m)^reply +312 NO_ROUTE$`, `(?m)^routing key +later$`, `(?m)^body 1$`)
	wantMatch(t, w.command(nil, 0, "dead-letters", "show", id(5)), `(?m)^00000000  00 ff `)
	if body := w.command(nil, 0, "dead-letters", "show", "--body", id(5)); body != "\x00\xff" {
		t.Errorf("the body is %q", body)
	}
	wantMatch(t, w.command(nil, 1, "dead-letters", "show", "999999"), `no dead letter has the id 999999`)
	wantMatch(t, w.command(nil, 2, "dead-letters", "show", "x"), `"x" is not the id of a dead letter`)

	wantMatch(t, w.command(nil, 2, "dead-letters", "purge"), `which ones\?`)
	wantMatch(t, w.command(nil, 2, "dead-letters", "redeliver", "--all", id(0)), `give it alone`)
	wantMatch(t, w.command(nil, 0, "dead-letters", "redeliver", "--all", "--dry-run"), `^6 dead letters would be sent again`)
	if n := len(w.letters()); n != 6 {
		t.Fatalf("%d are left after a dry run", n)
	}
	type changed struct {
		Count  int
		DryRun bool `json:"dry_run"`
	}
	if got := decode[changed](t, w.command(nil, 0, "dead-letters", "redeliver", "--all", "--dry-run", "--json")); got != (changed{6, true}) {
		t.Errorf("a dry run in JSON: %+v", got)
	}
	w.exec(`update amqp.dead_letter set last_failed_at = now() - interval '2 hours' where id = $1`, all[5].ID)
	wantMatch(t, w.command(nil, 0, "dead-letters", "purge", "--older-than", "1h", "--dry-run"), `^1 dead letter would be removed`)
	if n := len(w.letters()); n != 6 {
		t.Fatalf("%d are left after a dry run", n)
	}
	if list := decode[[]listed](t, w.command(nil, 0, "dead-letters", "list", "--json", "--older-than", "1h")); len(list) != 1 || list[0].ID != all[5].ID {
		t.Errorf("older than an hour: %+v", list)
	}
	w.queue(1, "later")
	wantMatch(t, w.command(nil, 0, "dead-letters", "redeliver", id(3), id(1)), `^2 dead letters sent again`)
	wantMatch(t, w.command(nil, 1, "dead-letters", "redeliver", id(3)), `1 of the ids that were given are not there`)
	wantMatch(t, w.command(nil, 0, "dead-letters", "redeliver", "--reason", "unroutable", "--limit", "2"), `^2 dead letters sent again`)
	w.exec(`insert into amqp.dead_letter (origin, lsn, kind, reason, head, body, last_failed_at) values ('old', '0/1', 'publish', 'invalid', '', '', now() - interval '3 hours')`)
	wantMatch(t, w.command(nil, 0, "dead-letters", "purge", "--older-than", "150m"), `^1 dead letter removed`)
	wantMatch(t, w.command(nil, 0, "dead-letters", "purge", "--broker", "1", "--exchange", "missing"), `^1 dead letter removed`)
	if got := fmt.Sprint(bodies(w.received(1, "later"))); got != "[body 2 body 4 body 1 body 3]" {
		t.Errorf("what came again is %s", got)
	}
	if left := w.letters(); len(left) != 1 || string(left[0].Body) != "body 5" {
		t.Errorf("left are %+v", left)
	}
	w.exec(`insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('more', '0/1', 'publish', 'invalid', '', '')`)
	if got := decode[changed](t, w.command(nil, 0, "dead-letters", "purge", "--all", "--json")); got != (changed{2, false}) || len(w.letters()) != 0 {
		t.Errorf("purged %+v, left %+v", got, w.letters())
	}
}

// Whoever watches does so over a restart, too.
func TestStatusIsWatchedOverARestartOfPostgreSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	// A database that never answered is a mistake.
	code, out := pgamqp(t, "status", "--watch", "--database-url", fmt.Sprintf("postgres://postgres@127.0.0.1:%d/x", closedPort(t)))
	if code != 1 || !strings.Contains(out, "connection refused") {
		t.Errorf("nobody answers: exit code %d\n%s", code, out)
	}
	d := launch(t, "status", "--watch", "--interval", "100ms", "--database-url", w.url(), "--slot", w.slot, "--listen", fmt.Sprintf("127.0.0.1:%d", closedPort(t)))
	d.waitLog("nobody reads it")
	if err := w.postgres.Stop(testserver.Fast); err != nil {
		t.Fatal(err)
	}
	d.waitLog("; trying again")
	wantMatch(t, d.log.String(), `(?m)^\d\d:\d\d:\d\d$`, `(?m)^\d\d:\d\d:\d\d  .*; trying again$`)
	if err := w.postgres.Start(); err != nil {
		t.Fatal(err)
	}
	seen := strings.Count(d.log.String(), "nobody reads it")
	await(t, startLimit, "the slot is seen again", func() bool { return strings.Count(d.log.String(), "nobody reads it") > seen })
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A login that is refused has a fix that lets it in, and a database without a broker gets one.
func TestDoctorLetsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	role := w.database + "_new"
	doctor := func(url string, code int) []finding {
		t.Helper()
		got, out := pgamqp(t, "doctor", "--json", "--slot", w.slot, "--database-url", url, "--listen", fmt.Sprintf("127.0.0.1:%d", closedPort(t)))
		if got != code {
			t.Errorf("exit code %d, want %d\n%s", got, code, out)
		}
		return decode[[]finding](t, out)
	}
	elsewhere := strings.Replace(w.url(), "/"+w.database, "/nowhere", 1)
	fix := wantFinding(t, doctor(elsewhere, 3), "error", "server", `database "nowhere" does not exist`)
	_, create, _ := strings.Cut(fix, "; or: ")
	w.exec(create)
	wantFinding(t, doctor(elsewhere, 3), "error", "installation", `not installed in database "nowhere"`)

	w.install()
	fix = wantFinding(t, doctor(w.urlAs(role), 3), "error", "server", `role "`+role+`" does not exist`)
	create, _, _ = strings.Cut(fix, " or, ")
	for statement := range strings.SplitSeq(create, ";") {
		w.exec(statement)
	}
	fix = wantFinding(t, doctor(w.urlAs(role), 0), "warning", "brokers", `amqp.broker has no rows`)
	w.exec(fix)
	for _, f := range doctor(w.urlAs(role), 3) { // where a broker may be or not
		if f.Area != "broker 1" && f.Level == "error" || f.Area == "brokers" {
			t.Errorf("after its fix: %+v", f)
		}
	}
}

// Who has installed with another slot than the default is told which, not to install once more.
func TestForgottenNameOfTheSlotIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	without := func(code int, args ...string) string {
		t.Helper()
		got, out := pgamqp(t, append(args, "--database-url", w.url(), "--listen", fmt.Sprintf("127.0.0.1:%d", closedPort(t)))...)
		if got != code {
			t.Errorf("%q: exit code %d, want %d\n%s", args, got, code, out)
		}
		return out
	}
	want := `slot "pgamqp" does not exist; pgamqp is installed with slot "` + w.slot + `"; fix: give --slot ` + w.slot
	if out := without(3, "run"); !strings.Contains(strings.ReplaceAll(out, `\"`, `"`), want) || strings.Contains(out, "pgamqp install") {
		t.Errorf("run says\n%s", out)
	}
	if fix := wantFinding(t, decode[[]finding](t, without(3, "doctor", "--json")), "error", "slot", `installed with slot "`+w.slot+`"`); fix != "give --slot "+w.slot {
		t.Errorf("doctor says %q", fix)
	}
	wantMatch(t, without(0, "status"), `(?m)^installed with slot "`+w.slot+`": give --slot `+w.slot+`$`)
	// Nor with a slot of this name that is another database's.
	other := newWorld(t, worldOptions{postgres: w.postgres, bare: true})
	other.slot = "pgamqp"
	other.install()
	if fix := wantFinding(t, decode[[]finding](t, without(3, "doctor", "--json")), "error", "slot", `belongs to database "`+other.database+`"`); !strings.Contains(fix, "give --slot "+w.slot+",") {
		t.Errorf("doctor says %q", fix)
	}
}

type finding struct{ Level, Area, What, Fix string }

// wantFinding returns how to fix what a finding says.
func wantFinding(t *testing.T, all []finding, level, area, what string) (fix string) {
	t.Helper()
	for _, f := range all {
		if f.Level == level && f.Area == area && regexp.MustCompile(what).MatchString(f.What) {
			return f.Fix
		}
	}
	t.Errorf("no %s about %s matches %q in %+v", level, area, what, all)
	return ""
}

func TestDoctorFindsWhatIsWrongAndHowToFixIt(t *testing.T) {
	t.Parallel()
	bare := newWorld(t, worldOptions{bare: true})
	all := decode[[]finding](t, bare.command(nil, 3, "doctor", "--json"))
	wantFinding(t, all, "ok", "server", `^PostgreSQL \d+.*logical decoding`)
	if fix := wantFinding(t, all, "error", "installation", `schema amqp is not installed`); fix != `run "pgamqp install"` {
		t.Errorf("the fix is %q", fix)
	}

	w := newWorld(t, worldOptions{brokers: 5})
	w.queue(1, "q")
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'good')`)
	w.waitDelivered()
	for _, f := range decode[[]finding](t, w.command(d, 0, "doctor", "--json")) {
		if f.Level == "error" {
			t.Errorf("with all as it should be: %+v", f)
		}
	}
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, closedPort(t))
	w.exec(`update amqp.broker set password = $1 where broker_id = 3`, wrongPassword)
	w.exec(`update amqp.broker set vhost = 'no such' where broker_id = 4`)
	w.script(
		`create table public.anonymous (id int primary key)`,
		`create table public.apart (id int primary key)`,
		`select amqp.route_table('public.anonymous', 5, 'changes', '{op}')`,
		`select amqp.route_table('public.apart', 5, '', 'q')`,
		`alter table public.anonymous drop constraint anonymous_pkey`,
		`alter publication pgamqp drop table public.apart`,
		`select amqp.publish(1, '', 'nowhere', 'bad')`,
	)
	w.waitDelivered()
	all = decode[[]finding](t, w.command(d, 3, "doctor", "--json"))
	wantFinding(t, all, "ok", "broker 1", `takes "guest"`)
	wantFinding(t, all, "error", "broker 2", `connection refused`)
	if fix := wantFinding(t, all, "error", "broker 3", `username or password not allowed`); !strings.Contains(fix, "where broker_id = 3") {
		t.Errorf("the fix is %q", fix)
	}
	if fix := wantFinding(t, all, "error", "broker 4", `vhost "?no such`); !strings.Contains(fix, "add_vhost") {
		t.Errorf("the fix is %q", fix)
	}
	wantFinding(t, all, "warning", "dead letters", `1 message could not be delivered`)
	wantFinding(t, all, "ok", "daemon", `is streaming`)
	// These fixes are SQL, which has to do what it says.
	for _, broken := range []struct{ level, area, what string }{
		{"error", "publication", `UPDATE and DELETE fail on public.anonymous`},
		{"error", "broker 5", `a route publishes to exchange "changes", which is not in`},
		{"warning", "publication", `route \d+ is for public.apart, which is not published`},
	} {
		fix := wantFinding(t, all, broken.level, broken.area, broken.what)
		w.exec(strings.TrimPrefix(fix, "add a primary key, or: "))
	}
	w.waitDelivered()
	after := decode[[]finding](t, w.command(d, 3, "doctor", "--json"))
	for _, f := range after {
		if f.Area == "publication" && f.Level != "ok" || f.Area == "broker 5" && f.Level != "ok" {
			t.Errorf("after its fix: %+v", f)
		}
	}
	wantMatch(t, w.command(d, 3, "doctor"), `(?m)^ok       server: `, `(?m)^ERROR    broker 2: .*\n         fix: `, `doctor: 3 errors`)
}
