package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// chaos is the world that a seeded run breaks: servers of its own, proxies between them and the
// daemon, and what it remembers of them. The tests' own connections do not go through the proxies.
// Faults run on goroutines of their own and use only what returns an error.
type chaos struct {
	*world  // of its methods only those that ask PostgreSQL are used: a broker is reached by channelTo
	seed    uint64
	brokers []chaosBroker
	nodes   []*testserver.RabbitMQ
	paths   []*proxy     // to the nodes
	path    *proxy       // to PostgreSQL
	leave   atomic.Int64 // sessions give up their connections when it changes

	daemons  *daemons
	diary    *diary
	sampler  *sampler
	drained  drained  // what faults have taken out of queues
	troubles troubles // of which the daemon logs nothing
}

// chaosBroker is a virtual host of a node.
type chaosBroker struct {
	node  int
	vhost string
}

// The queues of each broker. Order is promised and checked for all but the narrow one: what it
// refuses is tried again, while what follows it in the pipeline may be taken.
const (
	chaosNarrow   = "narrow"  // refuses what is too much while a policy says so
	chaosFragile  = "fragile" // is deleted and declared again, and so is the exchange
	chaosFleeting = "fleeting"
)

func chaosQueues() []string { return []string{loadQueue, chaosNarrow, chaosFragile} }

// quorum tells which of them are quorum queues.
func (p place) quorum() bool { return p == place{2, loadQueue} }

// Broker 2 is a node of its own; 1 and 3 share one.
func chaosNodes() []int { return []int{0, 1, 0} }

// walSenderTimeout is short, as what a frozen daemon or network holds is free only after it.
const walSenderTimeout = 4 * time.Second

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	c := &chaos{seed: seed, nodes: make([]*testserver.RabbitMQ, 2), diary: newDiary(t)}
	var postgres *testserver.Postgres
	var start errgroup.Group
	start.Go(func() (err error) {
		postgres, err = testserver.StartPostgres(testserver.PostgresOptions{
			Durable: true,
			Settings: map[string]string{
				"wal_sender_timeout": fmt.Sprint(walSenderTimeout.Milliseconds()),
				"checkpoint_timeout": "30s",
				"max_connections":    "60",
				// Big transactions are spilled to disk.
				"logical_decoding_work_mem": "256kB",
			},
		})
		return err
	})
	for i := range c.nodes {
		start.Go(func() (err error) {
			c.nodes[i], err = testserver.StartRabbitMQ(testserver.RabbitMQOptions{})
			return err
		})
	}
	err := start.Wait()
	t.Cleanup(func() {
		if postgres != nil {
			err = errors.Join(err, postgres.Close())
		}
		for _, n := range c.nodes {
			if n != nil {
				err = errors.Join(err, n.Close())
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	c.world = newWorld(t, worldOptions{postgres: postgres, rabbit: c.nodes[0], bare: true})
	c.install()
	c.path = startProxy(t, fmt.Sprintf("127.0.0.1:%d", postgres.Port()))
	for _, n := range c.nodes {
		c.paths = append(c.paths, startProxy(t, n.Addr()))
	}
	c.vhosts = nil
	for i, node := range chaosNodes() {
		b := chaosBroker{node: node, vhost: fmt.Sprintf("broker_%d", i+1)}
		if err := c.nodes[node].AddVHost(withDeadline(t, sqlLimit), b.vhost); err != nil {
			t.Fatal(err)
		}
		c.brokers, c.vhosts = append(c.brokers, b), append(c.vhosts, b.vhost)
		c.exec(`insert into amqp.broker (broker_id, host, port, vhost) values ($1, '127.0.0.1', $2, $3)`, i+1, c.paths[node].port(), b.vhost)
		if err := c.declare(withDeadline(t, sqlLimit), i+1); err != nil {
			t.Fatal(err)
		}
		rows := fmt.Sprintf("public.rows_%d", i+1)
		c.script(
			`create table `+rows+` (id text primary key, target text not null, content text not null)`,
			fmt.Sprintf(`select amqp.route_table('%s', %d, '', '{column.target}')`, rows, i+1),
		)
	}
	for node := range c.nodes {
		if err := c.nodes[node].Save(withDeadline(t, sqlLimit)); err != nil {
			t.Fatal(err)
		}
	}
	c.recordDeadLetters()
	c.daemons = &daemons{c: c}
	c.drained.got = make(map[place][]amqp.Delivery)
	return c
}

// declare makes the queues and the exchange of a broker, or what of them is missing.
func (c *chaos) declare(ctx context.Context, broker int) error {
	return c.withChannel(ctx, broker, func(ch *amqp.Channel) error {
		var err error
		for _, name := range chaosQueues() {
			var arguments amqp.Table
			switch {
			case name == chaosNarrow:
				// From the beginning: a policy that brings it together with a limit drops what is there.
				arguments = amqp.Table{"x-overflow": "reject-publish"}
			case place{broker, name}.quorum():
				arguments = amqp.Table{"x-queue-type": "quorum"}
			}
			_, failed := ch.QueueDeclare(name, true, false, false, false, arguments)
			err = errors.Join(err, failed)
		}
		return errors.Join(err,
			ch.ExchangeDeclare(chaosFleeting, "direct", true, false, false, false, nil),
			ch.QueueBind(chaosFragile, chaosFragile, chaosFleeting, false, nil))
	})
}

// withChannel opens a channel to a broker for a while.
func (c *chaos) withChannel(ctx context.Context, broker int, use func(*amqp.Channel) error) error {
	b := c.brokers[broker-1]
	conn, err := amqp.DialConfig(c.nodes[b.node].URL(b.vhost), amqp.Config{Dial: amqp.DefaultDial(20 * time.Second)})
	if err != nil {
		return fmt.Errorf("reach broker %d: %w", broker, err)
	}
	defer func() { _ = conn.Close() }()
	// Whatever the library waits for ends with ctx.
	defer context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) })()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("reach broker %d: %w", broker, err)
	}
	return use(ch)
}

// withSession opens a session for a while. The server may be about to come back.
func (c *chaos) withSession(ctx context.Context, use func(*pgx.Conn) error) error {
	for {
		conn, err := pgx.Connect(ctx, c.url())
		if err == nil {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return use(conn)
		}
		if ctx.Err() != nil {
			return err
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// holder returns the process id of the walsender that reads the slot, 0 if there is none.
func (c *chaos) holder(ctx context.Context) (pid int, err error) {
	err = c.withSession(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `select coalesce(active_pid, 0) from pg_replication_slots where slot_name = $1`, c.slot).Scan(&pid)
	})
	return pid, err
}

// checkEnd fails the test unless one daemon is all that is left.
func (c *chaos) checkEnd(goroutines float64) {
	c.t.Helper()
	d := c.daemons.current
	if slots := query[string](c.world, `select slot_name::text from pg_replication_slots order by 1`); strings.Join(slots, " ") != c.slot+" "+c.slot+"_history" {
		c.t.Errorf("the slots that are left are %v", slots)
	}
	if n := value[int](c.world, `select count(*)::int from pg_stat_activity where backend_type = 'walsender'`); n != 1 {
		c.t.Errorf("%d replication connections are left, want 1", n)
	}
	for node, n := range c.nodes {
		await(c.t, 20*time.Second, fmt.Sprintf("one connection to each virtual host of node %d", node+1), func() bool {
			var all []testserver.Connection
			if err := n.API(withDeadline(c.t, sqlLimit), http.MethodGet, "/connections", nil, &all); err != nil {
				c.t.Fatal(err)
			}
			count := 0
			for _, conn := range all {
				if conn.Properties["connection_name"] == "pgamqp "+c.slot {
					count++
				}
			}
			return count == 2-node
		})
	}
	checkGoroutines(c.t, d, goroutines)
	if code := d.stop(); code != 0 {
		c.t.Errorf("the daemon's exit code at the end is %d", code)
	}
}
