package integration

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// sample is what the slots said was confirmed at a moment.
type sample struct {
	began, ended time.Time
	main         pglogrepl.LSN         // of the slot of all brokers
	lanes        map[int]pglogrepl.LSN // of the slots that detached brokers have
	written      pglogrepl.LSN         // the end of the WAL, read last
	buried       int64                 // dead letters that were stored, read behind the slots
}

// confirmed is the position up to which a broker's messages are done.
func (s *sample) confirmed(broker int) pglogrepl.LSN {
	if lane, detached := s.lanes[broker]; detached {
		return min(s.main, lane)
	}
	return s.main
}

// lowest is the position up to which the messages of all brokers are done.
func (s *sample) lowest() pglogrepl.LSN {
	lowest := s.main
	for _, lane := range s.lanes {
		lowest = min(lowest, lane)
	}
	return lowest
}

const (
	sampleEvery = 50 * time.Millisecond
	markEvery   = 200 * time.Millisecond
	markLimit   = 2 * time.Second
)

// sampler watches that no slot is ever ahead of what is delivered. It reads the confirmed positions all the time, and
// puts marks behind what is in the queues: every message that ends at or before a position that was read before the
// mark was sent must be in front of the mark, or must have been a dead letter.
type sampler struct {
	c     *chaos
	end   context.CancelFunc
	ended sync.WaitGroup

	mu      sync.Mutex // guards samples
	samples []sample   // a mark is named after the index of one
}

func (c *chaos) startSampler() *sampler {
	ctx, end := context.WithCancel(c.t.Context())
	s := &sampler{c: c, end: end}
	s.ended.Go(func() { s.run(ctx) })
	for broker := range c.brokers {
		s.ended.Go(func() { s.markAll(ctx, broker+1) })
	}
	c.t.Cleanup(s.stop)
	return s
}

func (s *sampler) stop() {
	s.end()
	s.ended.Wait()
}

// run samples until ctx ends. PostgreSQL may be away.
func (s *sampler) run(ctx context.Context) {
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := pgx.Connect(limited, s.c.url())
		cancel()
		for left := s.c.leave.Load(); err == nil && ctx.Err() == nil && left == s.c.leave.Load(); {
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = s.take(limited, conn)
			cancel()
			pause(ctx, sampleEvery)
		}
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		pause(ctx, sampleEvery)
	}
}

// take takes one sample. The dead letters are counted by a statement of their own, whose snapshot is
// younger than the positions.
func (s *sampler) take(ctx context.Context, conn *pgx.Conn) error {
	now := sample{began: time.Now(), lanes: make(map[int]pglogrepl.LSN)}
	rows, err := conn.Query(ctx, `select slot_name::text, confirmed_flush_lsn::text from pg_replication_slots
		where slot_type = 'logical' and slot_name <> $1 || '_history' and confirmed_flush_lsn is not null`, s.c.slot)
	if err != nil {
		return err
	}
	var name, text string
	_, err = pgx.ForEachRow(rows, []any{&name, &text}, func() error {
		lsn, err := pglogrepl.ParseLSN(text)
		var broker int
		if n, _ := fmt.Sscanf(strings.TrimPrefix(name, s.c.slot), "_broker_%d", &broker); n == 1 {
			now.lanes[broker] = lsn
		} else {
			now.main = lsn
		}
		return err
	})
	if err != nil {
		return err
	}
	err = conn.QueryRow(ctx, `select coalesce(max(n), 0), pg_current_wal_insert_lsn()::text from buried`).Scan(&now.buried, &text)
	if err != nil {
		return err
	}
	if now.written, err = pglogrepl.ParseLSN(text); err != nil {
		return err
	}
	now.ended = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, now)
	return nil
}

// all returns the samples so far.
func (s *sampler) all() []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.samples[:len(s.samples):len(s.samples)]
}

// markAll puts marks into the queues of a broker until ctx ends. The broker may be away, or frozen.
func (s *sampler) markAll(ctx context.Context, broker int) {
	for ctx.Err() == nil {
		m := s.connectMarker(ctx, broker)
		for last := -1; m != nil && ctx.Err() == nil; {
			if newest := len(s.all()) - 1; newest > last {
				last = newest
				if !m.mark(ctx, newest) {
					break
				}
			}
			pause(ctx, markEvery)
		}
		if m != nil {
			_ = m.raw.Close() // the library's Close would wait for a broker that is frozen
		}
		pause(ctx, markEvery)
	}
}

// marker is a connection for marks.
type marker struct {
	raw     net.Conn
	channel *amqp.Channel
}

func (s *sampler) connectMarker(ctx context.Context, broker int) *marker {
	m := new(marker)
	b := s.c.brokers[broker-1]
	conn, err := amqp.DialConfig(s.c.nodes[b.node].URL(b.vhost), amqp.Config{Dial: func(network, address string) (net.Conn, error) {
		raw, err := net.DialTimeout(network, address, markLimit)
		if err == nil {
			err = raw.SetDeadline(time.Now().Add(markLimit)) // of the login; the library sets its own
			m.raw = raw
		}
		return raw, err
	}})
	if err != nil {
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = m.raw.Close() })()
	opened := time.AfterFunc(markLimit, func() { _ = m.raw.Close() })
	defer opened.Stop()
	if m.channel, err = conn.Channel(); err == nil {
		err = m.channel.Confirm(false)
	}
	if err != nil {
		_ = m.raw.Close()
		return nil
	}
	return m
}

// mark puts a mark into each queue; false means that the connection is of no use any more.
func (m *marker) mark(ctx context.Context, index int) bool {
	ctx, cancel := context.WithTimeout(ctx, markLimit)
	defer cancel()
	blocked := time.AfterFunc(markLimit, func() { _ = m.raw.Close() })
	defer blocked.Stop()
	var confirms []*amqp.DeferredConfirmation
	for _, queue := range chaosQueues() {
		confirm, err := m.channel.PublishWithDeferredConfirm("", queue, false, false,
			amqp.Publishing{Type: fmt.Sprintf("mark %d", index), DeliveryMode: amqp.Persistent})
		if err != nil {
			return false
		}
		confirms = append(confirms, confirm)
	}
	for _, confirm := range confirms {
		if _, err := confirm.WaitContext(ctx); err != nil {
			return false
		}
	}
	return !m.channel.IsClosed()
}
