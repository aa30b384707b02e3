package testserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RabbitMQCluster is nodes that share users, virtual hosts, exchanges and the names of queues.
// A quorum queue is on all of them. Each node can be stopped, killed and started by itself.
type RabbitMQCluster struct {
	Nodes []*RabbitMQ
}

// StartRabbitMQCluster makes a cluster of n nodes and starts it. The caller must Close it.
//
// The nodes are started one after the other, which takes four seconds each: started together
// they wait for each other and some give up.
func StartRabbitMQCluster(n int, o RabbitMQOptions) (*RabbitMQCluster, error) {
	for try := 1; ; try++ {
		c, err := newRabbitMQCluster(n, o)
		if err == nil {
			err = c.start()
		}
		if err == nil {
			return c, nil
		}
		taken := errors.Is(err, errEpmdEnded) || c.portTaken()
		err = errors.Join(fmt.Errorf("start a cluster of rabbitmq: %w", err), c.Close())
		if try == startTries || !taken {
			return nil, err
		}
	}
}

// newRabbitMQCluster makes nodes that know each other's names. What it returns is to be
// closed also if there is an error.
func newRabbitMQCluster(n int, o RabbitMQOptions) (*RabbitMQCluster, error) {
	c := &RabbitMQCluster{}
	var names []string
	for range n {
		r, err := newRabbitMQ(o)
		if err != nil {
			return c, err
		}
		c.Nodes = append(c.Nodes, r)
		names = append(names, r.Node())
		if shared := c.Nodes[0].epmd; r.epmd != shared {
			r.epmd.lease.release()
			r.epmd = shared
		}
		r.peers = slices.Clone(names) // those that are there when it starts
		if err := r.configure(); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *RabbitMQCluster) start() error {
	for _, r := range c.Nodes {
		if err := r.Start(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), rabbitStartLimit)
	defer cancel()
	if err := await(ctx, nil, 50*time.Millisecond, func() bool { return c.joined(ctx) }); err != nil {
		return fmt.Errorf("wait until the nodes have joined: %w", err)
	}
	return nil
}

// joined tells whether the first node sees all others run.
func (c *RabbitMQCluster) joined(ctx context.Context) bool {
	var nodes []struct {
		Running bool `json:"running"`
	}
	if err := c.Nodes[0].API(ctx, "GET", "/nodes", nil, &nodes); err != nil {
		return false
	}
	running := 0
	for _, n := range nodes {
		if n.Running {
			running++
		}
	}
	return running == len(c.Nodes)
}

func (c *RabbitMQCluster) portTaken() bool {
	for _, r := range c.Nodes {
		if portTaken(r.log.since(0)) {
			return true
		}
	}
	return false
}

// LogTail returns the last lines of all nodes' logs.
func (c *RabbitMQCluster) LogTail() string {
	var all strings.Builder
	for _, r := range c.Nodes {
		_, _ = fmt.Fprintf(&all, "%s:\n%s\n", r.Node(), r.LogTail())
	}
	return all.String()
}

// Close ends all nodes at once and removes all they had. It may be called twice.
func (c *RabbitMQCluster) Close() error {
	var err error
	for _, r := range c.Nodes {
		err = errors.Join(err, r.Kill()) // all, before the first takes epmd with it
	}
	for _, r := range c.Nodes {
		err = errors.Join(err, r.Close())
	}
	return err
}

// clusterLines tells a node of its cluster.
func (r *RabbitMQ) clusterLines() []string {
	if len(r.peers) == 0 {
		return nil
	}
	lines := []string{"cluster_formation.peer_discovery_backend = classic_config"}
	for i, name := range r.peers {
		lines = append(lines, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", i+1, name))
	}
	return lines
}
