package integration

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// clusterLimit is for what waits for an election or for a node that starts beside all the
// other tests.
const clusterLimit = 2 * time.Minute

// TestR09AndR12AndR40ClusterThatLosesNodesLosesNoMessage takes nodes away from a cluster of
// three under load. It takes long to start, so all share it, one after the other.
func TestR09AndR12AndR40ClusterThatLosesNodesLosesNoMessage(t *testing.T) {
	t.Parallel()
	nodes, err := testserver.StartRabbitMQCluster(3, testserver.RabbitMQOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of RabbitMQ:\n%s", nodes.LogTail())
		}
		if err := nodes.Close(); err != nil {
			t.Error(err)
		}
	})
	// The daemon tries hosts in this order, so it uses the first one that is there.
	slices.SortFunc(nodes.Nodes, func(a, b *testserver.RabbitMQ) int { return cmp.Compare(a.Port(), b.Port()) })
	const first, second, third = 0, 1, 2
	t.Run("the leader of the queue is killed", func(t *testing.T) {
		c := newCluster(t, nodes, third)
		c.kill(third)
		c.waitTaken()
		c.start(third)
		c.check(0, first)
	})
	t.Run("the node in use is killed, which leads the queue, then the next one and with it the majority", func(t *testing.T) {
		c := newCluster(t, nodes, first)
		c.kill(first)
		c.waitTaken()
		c.checkUsed(second)
		c.kill(second)
		// The node that is left refuses what it can give to no leader.
		await(t, clusterLimit, "the broker nacks", func() bool { return c.d.reading("pgamqp_nacked_messages_total") > 0 })
		c.start(first)
		c.waitTaken() // two are the majority again
		c.start(second)
		c.check(2, third)
		if n := c.d.metric("pgamqp_publish_retries_total", `reason="nacked"`); n == 0 {
			t.Error("nothing was sent again because of a nack")
		}
	})
	t.Run("the leader of the queue is cut off", func(t *testing.T) {
		c := newCluster(t, nodes, third)
		t.Cleanup(func() { _ = nodes.Nodes[third].Resume() }) // for a test that has failed
		if err := nodes.Nodes[third].Pause(); err != nil {
			t.Fatal(err)
		}
		c.waitTaken() // from the other two, who have elected a leader among them
		if err := nodes.Nodes[third].Resume(); err != nil {
			t.Fatal(err)
		}
		c.check(0, first)
	})
}

// cluster is one broker to the daemon, which knows the addresses of all nodes. A load goes to
// a quorum queue, which is on all of them and led by one.
type cluster struct {
	*world
	nodes   []*testserver.RabbitMQ
	history *history
	d       *daemon
	load    *load
}

// newCluster starts daemon and load; the queue is led by one of the nodes.
func newCluster(t *testing.T, nodes *testserver.RabbitMQCluster, leader int) *cluster {
	t.Helper()
	w := newWorld(t, worldOptions{rabbit: nodes.Nodes[0]})
	for _, n := range nodes.Nodes[1:] {
		w.exec(`insert into amqp.broker (broker_id, host, port, vhost) values (1, $1, $2, $3)`, n.Host(), n.Port(), w.vhosts[0])
	}
	quorum := loadOptions{pause: 20 * time.Millisecond, ledger: true, arguments: amqp.Table{"x-queue-type": "quorum"}}
	// A queue is led by the node that it was declared at.
	declare(t, channelTo(t, nodes.Nodes[leader], w.vhosts[0]), quorum.arguments, loadQueue)
	c := &cluster{world: w, nodes: nodes.Nodes, history: w.history()}
	c.d = w.start("--window-messages", fmt.Sprint(faultWindow))
	c.load = w.startLoad(quorum)
	c.load.waitCommits(20)
	w.waitDelivered()
	c.waitTaken()
	c.waitWhole()
	if q := c.queue(); q.Leader != nodes.Nodes[leader].Node() {
		t.Fatalf("%s leads the queue, not %s", q.Leader, nodes.Nodes[leader].Node())
	}
	c.checkUsed(0)
	return c
}

// kill ends a node without a warning.
func (c *cluster) kill(node int) {
	c.t.Helper()
	if err := c.nodes[node].Kill(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) start(node int) {
	c.t.Helper()
	if err := c.nodes[node].Start(); err != nil {
		c.t.Fatal(err)
	}
}

// waitTaken waits until the broker has confirmed more than what can be in flight now.
func (c *cluster) waitTaken() {
	c.t.Helper()
	began, before := time.Now(), c.d.confirmed()
	await(c.t, clusterLimit, "the broker takes messages", func() bool { return c.d.confirmed() > before+2*faultWindow })
	c.t.Logf("%d messages confirmed after %s", 2*faultWindow, time.Since(began).Round(time.Millisecond))
}

// waitWhole waits until each node has its part of the queue.
func (c *cluster) waitWhole() {
	c.t.Helper()
	await(c.t, clusterLimit, "the queue is on all nodes", func() bool { return len(c.queue().Online) == len(c.nodes) })
}

func (c *cluster) queue() testserver.Queue {
	c.t.Helper()
	all, err := c.rabbit.Queues(withDeadline(c.t, sqlLimit), c.vhosts[0])
	if err != nil {
		c.t.Fatal(err)
	}
	if len(all) != 1 {
		return testserver.Queue{} // not known yet
	}
	return all[0]
}

// checkUsed fails the test unless the daemon is connected to a node.
func (c *cluster) checkUsed(node int) {
	c.t.Helper()
	if n := c.nodes[node]; c.d.metric("pgamqp_broker_connected", fmt.Sprintf("host=%q", n.Addr())) != 1 {
		c.t.Errorf("the daemon is not connected to node %d at %s", node, n.Addr())
	}
}

// check is the end of a test: all nodes are there again. The daemon has lost so many
// connections and uses a node.
func (c *cluster) check(lost, used int) {
	c.t.Helper()
	c.waitTaken()
	c.waitWhole()
	c.load.stop()
	c.checkUsed(used)
	got := c.received(1, loadQueue)
	result := compare(c.history.bodies(1), got)
	result.wantComplete(c.t)
	// What comes again was sent again, and that is only what had no verdict.
	retries := int(c.d.metric("pgamqp_publish_retries_total"))
	if n := len(result.repeated); n > retries {
		c.t.Errorf("%d messages came again, more than the %d that were sent again", n, retries)
	}
	slices.Sort(result.repeated)
	if n := len(slices.Compact(result.repeated)); n > lost*faultWindow {
		c.t.Errorf("%d messages came again, more than were in flight when %d connections were lost", n, lost)
	}
	if n := c.deadLetters(); n > 0 {
		c.t.Errorf("%d dead letters", n)
	}
	c.history.checkLedger()
	c.checkLeftovers(c.d)
	c.t.Logf("%d messages; %d sent again, %d of them came again; %v nacks", len(got), retries, len(result.repeated),
		c.d.metric("pgamqp_nacked_messages_total"))
}
