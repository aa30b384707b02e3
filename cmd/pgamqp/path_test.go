package main

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/fakewal"
	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/publisher"
	"github.com/pgamqp/pgamqp/replication"
)

// wholePath is the way of a message, from the bytes that a walsender writes to the broker's
// confirm and back. Both ends are in this process and allocate nothing for a message.
type wholePath struct {
	tb      testing.TB
	stream  *fakewal.Stream
	broker  *ackingBroker
	session *replication.Session
	wal     *preparedWAL
	sent    int64
}

// load says what messages are like.
type load struct {
	perTransaction int
	exchanges      int
	body           int
	window         int
	ackEvery       int // messages that one confirm is for
	backlog        int // messages that gather at the broker without a confirm
}

// usual is what the daemon's cost is stated for: a broker that is slower than the daemon,
// so that the window is almost full, or full.
func usual() load {
	l := load{perTransaction: 1, exchanges: 1, body: 200, ackEvery: 64}
	l.setWindow(2048)
	return l
}

func (l *load) setWindow(n int) {
	l.window = n
	l.backlog = n - n/8 // or more: the daemon need not fill the window before it gets a confirm
}

// newPath starts all parts, and sends what is needed until they have settled.
func newPath(tb testing.TB, l load) *wholePath {
	tb.Helper()
	server := fakewal.Start(tb, fakewal.Config{Query: answerLikeAGoodSlot})
	postgres, err := pgconn.ParseConfig(server.URL())
	if err != nil {
		tb.Fatal(err)
	}
	broker := startBroker(tb, l.ackEvery, l.backlog)
	registry := prometheus.NewRegistry()
	received := metrics.NewReplication(registry, "pgamqp")
	log := slog.New(slog.DiscardHandler)
	session, err := replication.NewSession(replication.Config{
		Postgres: func() *pgconn.Config { return postgres }, Slot: "pgamqp", Publication: "pgamqp",
		InboxMessages: inboxMessages, InboxBytes: inboxBytes, ShutdownTimeout: time.Second,
	}, log, received)
	if err != nil {
		tb.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(broker.listener.Addr().String())
	n, _ := strconv.Atoi(port)
	brokers := []publisher.Broker{{ID: 1, Hosts: []publisher.Host{{Host: host, Port: n, VHost: "/", Username: "guest", Password: "guest"}}}}
	lanes := publisher.New(publisher.Config{
		WindowMessages: l.window, WindowBytes: 32 << 20,
		Brokers: func(context.Context, uint32) ([]publisher.Broker, error) { return brokers, nil },
	}, log, publisher.Metrics{Brokers: metrics.NewPublisher(registry), Received: received.Received, Skipped: received.Skipped})

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- lanes.Run(ctx) }()
	streaming, stop := context.WithCancel(ctx)
	go func() { ended <- session.Run(streaming, lanes) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			tb.Errorf("end of the session: %v", err)
		}
		cancel()
		<-ended //nolint:errcheck // never one
	})
	p := &wholePath{
		tb: tb, broker: broker, session: session, wal: prepareWAL(l),
		stream: fakewal.Await[*fakewal.Stream](tb, server),
	}
	p.send(ackedAlone + 2*int64(l.window))
	return p
}

// answerLikeAGoodSlot answers what the daemon asks before it streams.
func answerLikeAGoodSlot(q *fakewal.Query) *fakewal.Answer {
	switch {
	case strings.Contains(q.SQL, "pg_replication_slots"):
		return &fakewal.Answer{
			Columns: strings.Split("kind plugin database two_phase temporary wal_status confirmed here recovery timeout holder", " "),
			Rows:    [][]any{{"logical", "pgoutput", "fake", "false", "false", "reserved", "0/1500000", "fake", "false", "60000", nil}},
		}
	case strings.Contains(q.SQL, "pg_publication"):
		return &fakewal.Answer{Columns: []string{"one"}, Rows: [][]any{{1}}}
	}
	return nil
}

// send sends n messages, or more up to the next full block of transactions, and waits
// until all are confirmed and the daemon knows.
func (p *wholePath) send(n int64) {
	p.tb.Helper()
	blocks := (n + p.wal.messages - 1) / p.wal.messages
	p.sent += blocks * p.wal.messages
	p.broker.expected.Store(p.sent)
	for range blocks {
		p.stream.Conn.Write(p.wal.next())
	}
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for p.broker.acked.Load() < p.sent {
		select {
		case <-p.broker.progress:
		case <-timeout.C:
			p.tb.Fatalf("%d of %d messages are confirmed", p.broker.acked.Load(), p.sent)
		}
	}
	for p.session.Lag() > 0 { // allocates nothing
		runtime.Gosched()
	}
}

// preparedWAL is a piece of WAL as it is sent, again and again with other positions.
type preparedWAL struct {
	bytes     []byte
	messages  int64
	positions []position
	lsn       pglogrepl.LSN
}

// position is where in the bytes a position stands, and how far it lies behind the one
// that the bytes begin at.
type position struct {
	at  int
	lsn pglogrepl.LSN
}

// prepareWAL makes at least 64 messages.
func prepareWAL(l load) *preparedWAL {
	w := &preparedWAL{lsn: 0x1600000}
	var lsn pglogrepl.LSN
	frame := func(b []byte, at ...int) {
		head := binary.BigEndian.AppendUint32([]byte{'d'}, uint32(4+25+len(b)))
		head = append(append(head, 'w'), make([]byte, 24)...)
		for i, at := range at {
			w.positions = append(w.positions, position{len(w.bytes) + len(head) + at, lsn + pglogrepl.LSN(8*i)})
		}
		w.bytes = append(append(w.bytes, head...), b...)
	}
	now := time.Now()
	for w.messages < 64 {
		commit := lsn + pglogrepl.LSN(0x10*l.perTransaction)
		begin := len(w.positions)
		frame(fakewal.Begin(7, 1, now).Data, 1)
		w.positions[begin].lsn = commit
		for range l.perTransaction {
			exchange := "orders-" + strconv.Itoa(int(w.messages)%l.exchanges)
			lsn += 0x10
			frame(fakewal.Message(1, true, "amqp", envelopeTo(exchange, l.body)).Data, 2)
			w.messages++
		}
		frame(fakewal.Commit(1, 2, now).Data, 2, 10)
		lsn += 8
	}
	return w
}

// next returns the next piece. It may be overwritten once it is written.
func (w *preparedWAL) next() []byte {
	var last pglogrepl.LSN
	for _, p := range w.positions {
		binary.BigEndian.PutUint64(w.bytes[p.at:], uint64(w.lsn+p.lsn))
		last = p.lsn
	}
	w.lsn += last
	return w.bytes
}

// envelopeTo is what amqp.publish with four arguments writes.
func envelopeTo(exchange string, body int) []byte {
	b := []byte{1, 'p', 0, 0, 0, 1}
	for _, f := range []struct {
		tag   byte
		value string
	}{{'x', exchange}, {'k', "order.created"}, {'r', "shop"}} {
		b = binary.BigEndian.AppendUint32(b, uint32(f.tag)<<24|uint32(len(f.value)))
		b = append(b, f.value...)
	}
	return append(b, make([]byte, 4+body)...)
}
