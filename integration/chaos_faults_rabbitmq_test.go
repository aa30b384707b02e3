package integration

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitFaults end, freeze and bother a node.
func rabbitFaults(node int) []fault {
	restart := func(end func(f *breakage) error) func(f *breakage) error {
		return func(f *breakage) error {
			err := end(f)
			f.hold(0, 3*time.Second)
			if err := errors.Join(err, f.nodes[node].Start()); err != nil {
				return err
			}
			ctx, cancel := f.within(sqlLimit)
			defer cancel()
			return f.nodes[node].Save(ctx)
		}
	}
	all := []fault{
		{"stopped", 1, nil, restart(func(f *breakage) error { return f.nodes[node].Stop() })},
		{"killed", 2, nil, restart(func(f *breakage) error {
			t := trouble{began: time.Now()}
			err := f.nodes[node].Kill()
			t.ended = time.Now()
			for i, b := range f.brokers {
				if b.node == node {
					t.crashed = append(t.crashed, i+1)
				}
			}
			f.troubles.add(t)
			return err
		})},
		{"frozen", 2, nil, func(f *breakage) error {
			err := f.nodes[node].Pause()
			f.hold(200*time.Millisecond, 8*time.Second)
			return errors.Join(err, f.nodes[node].Resume())
		}},
		{"has an alarm", 2, nil, func(f *breakage) error {
			watermark := func(fraction string) error {
				ctx, cancel := f.within(sqlLimit)
				defer cancel()
				_, err := f.nodes[node].Ctl(ctx, "set_vm_memory_high_watermark", fraction)
				return err
			}
			err := watermark("0.000001")
			f.hold(500*time.Millisecond, 6*time.Second)
			return errors.Join(err, watermark("0.4"))
		}},
		{"closes all connections", 2, nil, func(f *breakage) error {
			ctx, cancel := f.within(sqlLimit)
			defer cancel()
			_, err := f.nodes[node].Ctl(ctx, "close_all_connections", "chaos")
			return err
		}},
	}
	for i := range all {
		all[i].name, all[i].touches = theNode(node)+" "+all[i].name, []string{theNode(node)}
	}
	return all
}

// brokerFaults change what is in a broker.
func brokerFaults(broker, node int) []fault {
	all := []fault{
		{"has a full queue", 2, nil, func(f *breakage) error { return f.fill(broker) }},
		{"loses a queue", 1, nil, func(f *breakage) error {
			return f.lose(broker, func(ch *amqp.Channel) error { return f.deleteQueue(ch, place{broker, chaosFragile}) })
		}},
		{"loses an exchange", 1, nil, func(f *breakage) error {
			return f.lose(broker, func(ch *amqp.Channel) error { return ch.ExchangeDelete(chaosFleeting, false, false) })
		}},
		{"loses a binding", 1, nil, func(f *breakage) error {
			return f.lose(broker, func(ch *amqp.Channel) error {
				return ch.QueueUnbind(chaosFragile, chaosFragile, chaosFleeting, nil)
			})
		}},
	}
	for i := range all {
		all[i].name, all[i].touches = fmt.Sprintf("broker %d %s", broker, all[i].name), []string{theNode(node)}
	}
	return all
}

// fill lets a queue refuse everything for a while, so that the broker sends nacks between its acks.
func (f *breakage) fill(broker int) error {
	b := f.brokers[broker-1]
	policy := "/policies/" + b.vhost + "/full"
	ctx, cancel := f.within(sqlLimit)
	defer cancel()
	began := time.Now()
	err := f.nodes[b.node].API(ctx, http.MethodPut, policy, map[string]any{
		"pattern": "^" + chaosNarrow + "$", "apply-to": "queues",
		"definition": map[string]any{"max-length": 1},
	}, nil)
	if err != nil {
		return err
	}
	f.hold(500*time.Millisecond, 5*time.Second)
	err = f.nodes[b.node].API(ctx, http.MethodDelete, policy, nil, nil)
	if err == nil {
		err = f.nodes[b.node].Save(ctx) // or it is back when the node is killed
	}
	// After a nack what has no verdict within the time to settle is sent again, without a word in the log.
	f.troubles.add(trouble{began: began, ended: time.Now().Add(2 * time.Second), times: 10})
	return err
}

// lose removes something and puts it back.
func (f *breakage) lose(broker int, remove func(*amqp.Channel) error) error {
	ctx, cancel := f.within(sqlLimit)
	defer cancel()
	err := errNotEmpty
	for errors.Is(err, errNotEmpty) && ctx.Err() == nil {
		err = f.withChannel(ctx, broker, remove)
	}
	if err == nil {
		err = f.nodes[f.brokers[broker-1].node].Save(ctx)
	}
	f.hold(0, 3*time.Second)
	return errors.Join(err, f.declare(ctx, broker), f.nodes[f.brokers[broker-1].node].Save(ctx))
}

// drained is what was taken out of queues before they were deleted.
type drained struct {
	mu  sync.Mutex // guards got
	got map[place][]amqp.Delivery
}

// errNotEmpty says that a message has come into a queue that was about to be deleted.
var errNotEmpty = errors.New("the queue is not empty")

// deleteQueue empties a queue and deletes it without losing sight of a message. Nothing may be on its way into the queue
// then: the broker confirms what a deleted queue would have got. So the binding goes first, by which alone the load
// reaches this queue, and some time later what has been routed by it is in the queue.
func (f *breakage) deleteQueue(ch *amqp.Channel, from place) error {
	if err := ch.QueueUnbind(from.queue, chaosFragile, chaosFleeting, nil); err != nil {
		return err
	}
	f.hold(500*time.Millisecond, time.Second)
	for {
		m, ok, err := ch.Get(from.queue, true)
		if err != nil {
			return fmt.Errorf("empty queue %s: %w", from.queue, err)
		}
		if !ok {
			break
		}
		f.drained.add(from, m)
	}
	_, err := ch.QueueDelete(from.queue, false, true, false)
	var refused *amqp.Error
	if errors.As(err, &refused) && refused.Code == amqp.PreconditionFailed {
		return errNotEmpty // a mark, which comes by another way
	}
	return err
}

func (d *drained) add(from place, m amqp.Delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got[from] = append(d.got[from], m)
}

// take returns what was taken out and forgets it.
func (d *drained) take() map[place][]amqp.Delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	got := d.got
	d.got = make(map[place][]amqp.Delivery)
	return got
}
