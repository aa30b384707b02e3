package integration

import (
	"strings"
	"testing"
)

// setPermissions runs the command line that doctor names, by the node's own rabbitmqctl.
func (w *world) setPermissions(fix string) {
	w.t.Helper()
	_, args, found := strings.Cut(fix, "rabbitmqctl set_permissions ")
	if !found {
		w.t.Fatalf("the fix is no command: %q", fix)
	}
	words := []string{"set_permissions"}
	args, _, _ = strings.Cut(args, ";")
	for word := range strings.FieldsSeq(args) {
		words = append(words, strings.Trim(word, `"`))
	}
	if out, err := w.rabbit.Ctl(withDeadline(w.t, sqlLimit), words...); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
}

// A login alone proves nothing: without the right to write each message becomes a dead letter. Doctor finds that out by a
// message that it takes back, so no queue gets any.
func TestDoctorFindsMissingPermissionsOfTheBroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "open", false, "q")
	w.exchange(1, "closed", false, "q")
	w.exchange(1, "hidden", true, "q")
	user := w.limitedUser(`^(open|hidden)$`)
	w.script(
		`create table public.orders (id int primary key)`,
		`select amqp.route_table('public.orders', 1, 'open', '{op}')`,
	)
	d := w.start()
	all := decode[[]finding](t, w.command(d, 0, "doctor", "--json"))
	wantFinding(t, all, "ok", "broker 1", `takes "`+user+`"`)
	wantFinding(t, all, "warning", "broker 1", `"`+user+`" may not write to the default exchange.*dead letters`)

	w.script(
		`create table public.lines (id int primary key)`,
		`create table public.items (id int primary key)`,
		`select amqp.route_table('public.lines', 1, 'closed', '{op}')`,
		`select amqp.route_table('public.items', 1, 'hidden', '{op}')`,
	)
	all = decode[[]finding](t, w.command(d, 3, "doctor", "--json"))
	fix := wantFinding(t, all, "error", "broker 1", `"`+user+`" may not write to exchange "closed".*ACCESS_REFUSED - .*dead letters`)
	wantFinding(t, all, "error", "broker 1", `may not write to exchange "hidden".*internal exchange`)

	// With nothing that it may write to, the default exchange is no detail any more.
	w.exec(`delete from amqp.route`)
	w.allow(user, `^$`)
	all = decode[[]finding](t, w.command(d, 3, "doctor", "--json"))
	wantFinding(t, all, "error", "broker 1", `may not write to the default exchange`)
	w.setPermissions(fix)
	for _, f := range decode[[]finding](t, w.command(d, 0, "doctor", "--json")) {
		if f.Area == "broker 1" && f.Level != "ok" {
			t.Errorf("after its fix: %+v", f)
		}
	}
	w.script(`select amqp.queue_declare(1, 'declared')`, `select amqp.disconnect(1)`, `select amqp.publish(1, '', 'declared', 'arrives')`)
	w.wantBodies("declared", "arrives")
	if n := len(w.received(1, "q")); n != 0 {
		t.Errorf("doctor has left %d messages", n)
	}
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters: %+v", n, w.letters())
	}
}

// A virtual host that the user may not enter, or that is not there.
func TestDoctorNamesAllRightsForAVirtualHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	user := w.limitedUser(".*")
	w.exec(`update amqp.broker set vhost = $1`, w.database+"_new")
	d := w.start()
	all := decode[[]finding](t, w.command(d, 3, "doctor", "--json"))
	fix := wantFinding(t, all, "error", "broker 1", `vhost`)
	addVHost, setPermissions, _ := strings.Cut(fix, "; ")
	if addVHost != "rabbitmqctl add_vhost "+w.database+"_new" {
		t.Fatalf("the fix is %q", fix)
	}
	w.vhosts = append(w.vhosts, w.database+"_new") // to be removed in the end
	if err := w.rabbit.AddVHost(withDeadline(t, sqlLimit), w.database+"_new"); err != nil {
		t.Fatal(err)
	}
	w.setPermissions(setPermissions)
	w.script(`select amqp.queue_declare(1, 'declared')`, `select amqp.publish(1, '', 'declared', 'arrives')`)
	w.waitDelivered()
	if n := w.deadLetters(); n != 0 {
		t.Errorf("as %s: %d dead letters: %+v", user, n, w.letters())
	}
}

// A broker with an alarm lets us in and reads nothing more: doctor says so, and does not wait for it.
func TestDoctorSeesAnAlarm(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{rabbit: rabbit})
	setAlarm(t, rabbit, true)
	all := decode[[]finding](t, w.command(nil, 3, "doctor", "--json"))
	if fix := wantFinding(t, all, "error", "broker 1", `has an alarm and takes no messages: low on memory`); !strings.Contains(fix, "free memory or disk") {
		t.Errorf("the fix is %q", fix)
	}
	setAlarm(t, rabbit, false)
	wantFinding(t, decode[[]finding](t, w.command(nil, 0, "doctor", "--json")), "ok", "broker 1", `takes "guest"`)
}
