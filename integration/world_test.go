package integration

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// world is what a test has for itself: a database with pgamqp installed, and brokers 1, 2
// and so on, each a virtual host of one RabbitMQ. Its methods end the test when something
// goes wrong, so they belong to the test's goroutine.
type world struct {
	t        *testing.T
	postgres *testserver.Postgres
	rabbit   *testserver.RabbitMQ
	database string
	slot     string
	vhosts   []string // of broker 1, 2, ...
}

type worldOptions struct {
	brokers  int                  // 0 is 1
	postgres *testserver.Postgres // nil is the shared one
	rabbit   *testserver.RabbitMQ // nil is the shared one
	bare     bool                 // an empty database and no slot: the test installs
}

//nolint:gochecknoglobals // names must differ over all tests
var worlds atomic.Int64

const sqlLimit = 60 * time.Second

func newWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	name := fmt.Sprintf("world_%d", worlds.Add(1))
	// Slots belong to the server, not to a database, hence the name.
	w := &world{t: t, postgres: o.postgres, rabbit: o.rabbit, database: name, slot: name}
	if w.postgres == nil {
		w.postgres = shared.postgres
	}
	if w.rabbit == nil {
		w.rabbit = shared.rabbit
	}
	ctx := withDeadline(t, sqlLimit)
	if err := w.postgres.CreateDatabase(ctx, w.database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cleanup)
	for i := range max(1, o.brokers) {
		vhost := fmt.Sprintf("%s_%d", name, i+1)
		if err := w.rabbit.AddVHost(ctx, vhost); err != nil {
			t.Fatal(err)
		}
		w.vhosts = append(w.vhosts, vhost)
	}
	if o.bare {
		return w
	}
	w.install()
	for i, vhost := range w.vhosts {
		w.exec(`insert into amqp.broker (broker_id, host, port, vhost) values ($1, $2, $3, $4)`,
			i+1, w.rabbit.Host(), w.rabbit.Port(), vhost)
	}
	return w
}

// ownPostgres starts a server for one test, closed with it.
func ownPostgres(t *testing.T, o testserver.PostgresOptions) *testserver.Postgres {
	t.Helper()
	p, err := testserver.StartPostgres(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// cleanup makes room on the shared servers. Servers of a test's own are thrown away.
func (w *world) cleanup() {
	if w.t.Failed() {
		w.t.Logf("log of PostgreSQL:\n%s", w.postgres.LogTail())
	}
	ctx := withDeadline(w.t, sqlLimit)
	if w.rabbit == shared.rabbit {
		for _, vhost := range w.vhosts {
			if err := w.rabbit.DeleteVHost(ctx, vhost); err != nil {
				w.t.Error(err)
			}
		}
	}
	if w.postgres != shared.postgres {
		return
	}
	conn, err := pgx.Connect(ctx, w.postgres.URL("postgres"))
	if err != nil {
		w.t.Error(err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, statement := range []string{
		`select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active and database = '` + w.database + `'`,
		`select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '` + w.database + `'`,
		`drop database ` + w.database + ` with (force)`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			w.t.Errorf("clean up: %s: %v", statement, err)
		}
	}
}

// url is the address of the world's database.
//
// It has a password, which the server does not ask for, so that every test would find it in a log.
func (w *world) url() string {
	return strings.Replace(w.postgres.URL(w.database), "//postgres@", "//postgres:"+rolePassword+"@", 1)
}

// urlAs is url for another role.
func (w *world) urlAs(role string) string {
	return strings.Replace(w.postgres.URL(w.database), "//postgres@", "//"+role+":"+rolePassword+"@", 1)
}

// install runs `pgamqp install`.
func (w *world) install() {
	w.t.Helper()
	if code, out := pgamqp(w.t, "install", "--database-url", w.url(), "--slot", w.slot); code != 0 {
		w.t.Fatalf("install: exit code %d\n%s", code, out)
	}
}

// launch starts the daemon, with more arguments if given, and does not wait for it.
func (w *world) launch(args ...string) *daemon {
	w.t.Helper()
	return launch(w.t, append([]string{
		"run", "--database-url", w.url(), "--slot", w.slot, "--listen", "127.0.0.1:0",
	}, args...)...)
}

// start starts the daemon and waits until it is ready.
func (w *world) start(args ...string) *daemon {
	w.t.Helper()
	d := w.launch(args...)
	d.waitReady()
	return d
}

// connect opens a session, closed with the test.
func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	return w.connectAs("postgres")
}

// connectAs is connect for another role.
func (w *world) connectAs(role string) *pgx.Conn {
	w.t.Helper()
	conn, err := pgx.Connect(withDeadline(w.t, sqlLimit), w.urlAs(role))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(withDeadline(w.t, 5*time.Second)) }) // the test may have closed it
	return conn
}

// exec runs a statement in a session of its own.
func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	if err := w.try(statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

// script runs statements one after the other in one session, each by itself, so that they
// may begin and end transactions.
func (w *world) script(statements ...string) {
	w.t.Helper()
	conn := w.connect()
	for _, s := range statements {
		run(w.t, conn, s)
	}
	_ = conn.Close(withDeadline(w.t, 5*time.Second))
}

// try is exec for what may fail.
func (w *world) try(statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), sqlLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.url())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement, args...)
	return err
}

// run executes a statement in a session of the test's.
func run(t *testing.T, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(withDeadline(t, sqlLimit), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// query returns the rows of a statement.
func query[T any](w *world, statement string, args ...any) []T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.t.Context()), sqlLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.url())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, statement, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
	return all
}

// value returns the one value that a statement yields.
func value[T any](w *world, statement string, args ...any) T {
	w.t.Helper()
	all := query[T](w, statement, args...)
	if len(all) != 1 {
		w.t.Fatalf("%s: %d rows, want one", statement, len(all))
	}
	return all[0]
}

// waitDelivered waits until everything committed so far is confirmed or a dead letter.
func (w *world) waitDelivered() {
	w.t.Helper()
	if !value[bool](w, `select amqp.wait_delivered("timeout" => '50s')`) {
		w.t.Fatalf("not all is delivered; dead letters: %v", query[string](w, `select format('%s: %s', reason, reply_text) from amqp.dead_letter`))
	}
}

// deadLetters returns how many there are.
func (w *world) deadLetters() int {
	w.t.Helper()
	return value[int](w, `select count(*)::int from amqp.dead_letter`)
}

// channel opens a channel to a broker, as user guest, closed with the test.
func (w *world) channel(broker int) *amqp.Channel {
	w.t.Helper()
	return channelTo(w.t, w.rabbit, w.vhosts[broker-1])
}

// channelTo opens a channel to a node, as user guest, closed with the test.
func channelTo(t *testing.T, node *testserver.RabbitMQ, vhost string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.DialConfig(node.URL(vhost), amqp.Config{Dial: amqp.DefaultDial(20 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	// The test may have ended the broker, and a queue that does not answer makes its node's end of a connection wait.
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(10 * time.Second)) })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// queue declares durable queues at a broker.
func (w *world) queue(broker int, names ...string) {
	w.t.Helper()
	declare(w.t, w.channel(broker), nil, names...)
}

// declare declares durable queues with arguments, and closes the channel.
func declare(t *testing.T, ch *amqp.Channel, arguments amqp.Table, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := ch.QueueDeclare(name, true, false, false, false, arguments); err != nil {
			t.Fatalf("declare queue %s: %v", name, err)
		}
	}
	if err := ch.Close(); err != nil {
		t.Error(err)
	}
}
