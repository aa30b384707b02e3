package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ceilingWindow is what a publisher with confirms may leave open; more gives nothing.
const ceilingWindow = 4096

// publishOnly is the limit of a broker: a loop that publishes the same message.
func publishOnly(ctx context.Context, t *task) (result, error) {
	var gathering *gatheringConn
	var over func(net.Conn) net.Conn
	if t.Gather {
		over = func(c net.Conn) net.Conn {
			gathering = &gatheringConn{Conn: c, out: bufio.NewWriterSize(c, 64<<10), atOnce: true}
			return gathering
		}
	}
	conn, err := t.Target.dial(over)
	if err != nil {
		return result{}, err
	}
	flush := func() error { return nil }
	if gathering != nil {
		flush = gathering.flush
	}
	defer func() {
		gathering.writeAtOnce(true) // or the broker would not hear of the end, nor answer it
		_ = conn.Close()
	}()
	ch, err := conn.Channel()
	if err != nil {
		return result{}, err
	}
	if t.Confirm {
		if err := ch.Confirm(false); err != nil {
			return result{}, err
		}
	}
	gathering.writeAtOnce(false)
	p := t.Content.publishing()
	if t.BodyOnly {
		p.MessageId = ""
	}
	open := make([]*amqp.DeferredConfirmation, t.Window)
	began := time.Now()
	for n := range t.Messages {
		if t.Confirm && n >= t.Window {
			if err := settled(ctx, open[n%t.Window], flush); err != nil {
				return result{}, err
			}
		}
		exchange, key := t.To.exchange(n)
		c, err := ch.PublishWithDeferredConfirm(exchange, key, true, false, p)
		if err != nil {
			return result{}, fmt.Errorf("publish: %w", err)
		}
		if t.Confirm {
			open[n%t.Window] = c
		}
	}
	if !t.Confirm {
		// The answer comes when the broker has read all before it.
		err := flush()
		gathering.writeAtOnce(true)
		_, failed := ch.QueueDeclarePassive(t.To.Queue, true, false, false, false, nil)
		return since(began), errors.Join(err, failed)
	}
	for _, c := range open {
		if c != nil {
			if err := settled(ctx, c, flush); err != nil {
				return result{}, err
			}
		}
	}
	return since(began), nil
}

// settled waits for a confirm; what is to be confirmed must have been written.
func settled(ctx context.Context, c *amqp.DeferredConfirmation, flush func() error) error {
	select {
	case <-c.Done():
	default:
		if err := flush(); err != nil {
			return err
		}
		select {
		case <-c.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !c.Acked() {
		return errors.New("the broker has not confirmed a message")
	}
	return nil
}

// gatheringConn writes to its socket when a buffer is full, or when it is told to.
type gatheringConn struct {
	net.Conn

	mu     sync.Mutex // guards all below
	out    *bufio.Writer
	atOnce bool // for calls of the library that wait for an answer
}

func (g *gatheringConn) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, err := g.out.Write(p)
	if g.atOnce && err == nil {
		err = g.out.Flush()
	}
	return n, err
}

// writeAtOnce does nothing without g.
func (g *gatheringConn) writeAtOnce(yes bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.atOnce = yes
}

func (g *gatheringConn) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.Flush()
}
