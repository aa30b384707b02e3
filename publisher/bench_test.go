package publisher

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/metrics"
)

// An operation of these benchmarks is a message.

func benchFields() fields { return fields{'x': "orders", 'k': "order.created", 'r': "shop"} }

func BenchmarkWindow(b *testing.B) {
	for _, size := range []int{64, 2048, 16384} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			w := window{maxCount: size, maxBytes: 1 << 40}
			entries := make([]entry, size)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				e := &entries[n%size]
				if n++; w.full(100) {
					w.resolve(e) // the oldest one
				}
				*e = entry{size: 100}
				w.add(e)
				w.take()
			}
		})
	}
}

// BenchmarkLane is what a message costs in its lane beside publishing.
func BenchmarkLane(b *testing.B) {
	l := newLane(Broker{ID: 1}, Config{WindowMessages: 2048, WindowBytes: 1 << 30}, quiet(),
		metrics.NewPublisher(prometheus.NewRegistry()).Broker(1))
	done := func() {}
	b.ReportAllocs()
	for b.Loop() {
		e := &entry{size: 1300, done: done}
		if err := l.add(context.Background(), e); err != nil {
			b.Fatal(err)
		}
		l.resolve(l.take())
	}
}

func BenchmarkRoute(b *testing.B) {
	all := fields{
		'x': "orders", 'k': "order.created", 'm': "2", 't': "application/json", 'n': "utf-8", 'y': "answers", 'c': "c-1",
		'h': `{"tenant": "a", "attempt": 1}`, 'i': "m-1", 'p': "5", 'e': "60000", 'w': "created", 'a': "shop", 's': "1700000000", 'r': "shop",
	}
	for _, c := range []struct {
		name    string
		fields  fields
		headers Headers
	}{
		{"four arguments", benchFields(), Headers{}},
		{"pg_headers", benchFields(), Headers{LSN: true, XID: true, CommitTime: true, Role: true}},
		{"all properties", all, Headers{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := message(1, envelope(decoder.KindPublish, 1, c.fields, string(make([]byte, 200))))
			e := parsed(b, m.Content)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := route(&m, &e, c.headers); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// discard is a connection to nobody, whose writes take as long as a system call.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }
func (discard) Close() error                     { return nil }

func BenchmarkCoalescingConn(b *testing.B) {
	c := newCoalescingConn(discard{}, time.Second)
	b.Cleanup(func() { _ = c.Close() })
	p := make([]byte, 350)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPublish is everything in this package before a message is sent: a Publisher
// whose lane takes what is given, without a broker.
func BenchmarkPublish(b *testing.B) {
	registry := prometheus.NewRegistry()
	received := metrics.NewReplication(registry, "pgamqp")
	p := New(Config{WindowMessages: 2048, WindowBytes: 1 << 30}, quiet(),
		Metrics{Brokers: metrics.NewPublisher(registry), Received: received.Received, Skipped: received.Skipped})
	l := newLane(Broker{ID: 1}, p.cfg, quiet(), p.metrics.Brokers.Broker(1))
	p.lanes[1], p.gates[1] = l, NewGate(1)
	m := message(1, envelope(decoder.KindPublish, 1, benchFields(), string(make([]byte, 200))))
	done := func() {}
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Publish(context.Background(), m, done); err != nil {
			b.Fatal(err)
		}
		l.resolve(l.take())
	}
}
