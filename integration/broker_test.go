package integration

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

func TestBrokerIsUsedInTheTransactionThatInsertsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	w.script(
		`begin`,
		`insert into amqp.broker (broker_id, host, port, vhost) select 20, host, port, vhost from amqp.broker where broker_id = 1`,
		`select amqp.publish(20, '', 'q', 'a')`,
		`commit`,
	)
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q came", got)
	}
	// Deleted and inserted again in one transaction is another matter for a lane than changed.
	w.script(
		`begin`,
		`create temp table b as select * from amqp.broker where broker_id = 20`,
		`delete from amqp.broker where broker_id = 20`,
		`insert into amqp.broker select * from b`,
		`select amqp.publish(20, '', 'q', 'b')`,
		`commit`,
	)
	w.exec(`select amqp.publish(20, '', 'q', 'c')`)
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("%q came", got)
	}
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
}

func TestBrokerThatIsDeletedWithMessagesForItLosesNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start()
	// A lane that cannot deliver: what it holds becomes dead letters with its broker.
	w.exec(`insert into amqp.broker (broker_id, host, port) values (20, '127.0.0.1', $1)`, closedPort(t))
	w.exec(`select amqp.publish(20, '', 'q', 'good ' || n) from generate_series(1, 100) n`)
	await(t, time.Minute, "the lane holds the messages", func() bool {
		return d.reading("pgamqp_received_messages_total", `kind="publish"`) == 100
	})
	w.exec(`delete from amqp.broker where broker_id = 20`)
	w.waitDelivered()
	if n := value[int](w, `select count(*)::int from amqp.dead_letter where reason = 'unknown_broker' and broker_id = 20`); n != 100 {
		t.Fatalf("%d dead letters, want 100", n)
	}
	w.exec(`insert into amqp.broker select 20, host, port, vhost from amqp.broker where broker_id = 1`)
	w.exec(`select amqp.redeliver_all(20)`)
	compare(good(100), w.received(1, "q")).wantExact(t)
}

func TestBrokerCanBeCorrectedWhileTheDaemonRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	name := w.database + "_user"
	ctx := withDeadline(t, sqlLimit)
	if err := w.rabbit.AddUser(ctx, name, userPassword, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.rabbit.API(withDeadline(t, sqlLimit), http.MethodDelete, "/users/"+name, nil, nil); err != nil {
			t.Error(err)
		}
	})
	if err := w.rabbit.SetPermissions(ctx, w.vhosts[0], name, "", ".*", ""); err != nil {
		t.Fatal(err)
	}
	w.exec(`update amqp.broker set username = $1, password = $2 where broker_id = 1`, name, wrongPassword)
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'waits for the password')`)
	d.waitLog("username or password not allowed")
	w.exec(`update amqp.broker set password = $1 where broker_id = 1`, userPassword)
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"waits for the password"}) {
		t.Errorf("%q came", got)
	}

	w.script(
		`begin`,
		`select amqp.publish(1, '', 'q', 'to the old host')`,
		`update amqp.broker b set username = null, password = null, vhost = o.vhost from amqp.broker o where o.broker_id = 2 and b.broker_id = 1`,
		`commit`,
	)
	w.waitDelivered()
	await(t, time.Minute, "the daemon uses the other virtual host", func() bool {
		w.exec(`select amqp.publish(1, '', 'q', 'to the new host')`)
		w.waitDelivered()
		return len(w.take(2, "q")) > 0
	})
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
}

func TestHostsOfABrokerAreTriedInTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	const dead = 1 // nobody listens there; the order is that of the primary key, so it is tried first
	hosts := []*proxy{startProxy(t, w.rabbit.Addr()), startProxy(t, w.rabbit.Addr())}
	w.exec(`delete from amqp.broker`)
	for _, port := range []int{dead, hosts[0].port(), hosts[1].port()} {
		w.exec(`insert into amqp.broker (broker_id, host, port, vhost) values (1, '127.0.0.1', $1, $2)`, port, w.vhosts[0])
	}
	d := w.start()
	connected := func(port int) bool {
		return d.reading("pgamqp_broker_connected", fmt.Sprintf(`host="127.0.0.1:%d"`, port)) == 1
	}
	publish := func() {
		t.Helper()
		w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 100) n`)
		compare(good(100), w.received(1, "q")).wantExact(t)
	}
	publish()
	if connected(dead) || connected(hosts[0].port()) == connected(hosts[1].port()) {
		t.Error("the daemon is not connected to one of the hosts that live")
	}
	if !connected(hosts[0].port()) {
		slices.Reverse(hosts)
	}
	for range 2 { // the one in use fails, the other one takes over, and the other way round
		hosts[0].refuse()
		await(t, time.Minute, "the daemon uses the other host", func() bool { return connected(hosts[1].port()) })
		publish()
		hosts[0].accept()
		slices.Reverse(hosts)
	}
}

// closedPort returns a port on which nobody listens during the test, unless the test lets a program do so.
func closedPort(t *testing.T) int {
	t.Helper()
	port, release, err := testserver.ClosedPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}
