package testserver

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestRabbitMQClusterSharesAQuorumQueue(t *testing.T) {
	t.Parallel()
	c, err := StartRabbitMQCluster(3, RabbitMQOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(c.LogTail())
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.Nodes[0].AddVHost(ctx, "v"); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, c.Nodes[2], "v").QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	var q Queue
	online := func(n int) {
		t.Helper()
		if err := await(ctx, nil, 50*time.Millisecond, func() bool {
			all, err := c.Nodes[0].Queues(ctx, "v")
			if err != nil || len(all) != 1 {
				return false
			}
			q = all[0]
			return len(q.Online) == n
		}); err != nil {
			t.Fatalf("wait for %d members of the queue, have %+v: %v", n, q, err)
		}
	}
	online(3)
	if q.Leader != c.Nodes[2].Node() {
		t.Errorf("%s leads the queue, not %s", q.Leader, c.Nodes[2].Node())
	}
	if err := c.Nodes[2].Kill(); err != nil {
		t.Fatal(err)
	}
	online(2)
	ch := dial(t, c.Nodes[0], "v")
	var refusal error
	if err := await(ctx, nil, 50*time.Millisecond, func() bool { // refused until a leader is elected
		refusal = send(ctx, ch, "q")
		return refusal == nil
	}); err != nil {
		t.Fatalf("a queue without one of its members does not work: %v: %v", err, refusal)
	}
	if err := c.Nodes[2].Start(); err != nil {
		t.Fatal(err)
	}
	online(3)
	if n := depth(t, c.Nodes[2], "v", "q"); n != 1 {
		t.Errorf("the node that was killed sees %d messages, want 1", n)
	}
}
