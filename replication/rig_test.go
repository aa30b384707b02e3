package replication

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakewal"
)

// rig is a stream in the middle of its life, with the test as its server. They are
// joined by a pipe and not by a socket, so that all of it lives in a bubble of
// synctest, where hours pass at once and to the nanosecond. fakewal plays the
// server where time does not matter.
type rig struct {
	t      *testing.T
	stream *stream
	sink   *fakeSink
	pipe   net.Conn
	out    chan []byte
	ended  chan error // what run returned
	stop   context.CancelFunc
	cancel context.CancelFunc

	mu       sync.Mutex // guards all below
	answer   func(status)
	farewell func() // before CopyDone is answered
	statuses []status
	copyDone bool
}

// status is a report as the server receives it.
type status struct {
	at                  time.Time
	write, flush, apply pglogrepl.LSN
	ask                 bool
}

// newRig starts a stream whose slot is confirmed up to from. It ends with the test.
func newRig(t *testing.T, from pglogrepl.LSN, walSenderTimeout time.Duration, sink *fakeSink) *rig {
	t.Helper()
	ours, theirs := net.Pipe()
	config, err := pgconn.ParseConfig("postgres://u@127.0.0.1/d?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	raw := &wakeableConn{Conn: ours}
	conn, err := pgconn.Construct(&pgconn.HijackedConn{Conn: raw, Config: config, TxStatus: 'I'})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, sink: sink, pipe: theirs, out: make(chan []byte, 10_000), ended: make(chan error, 1)}
	s := &stream{
		cfg: Config{Slot: "pgamqp"}, log: quiet(), metrics: freshMetrics(), conn: conn, raw: raw,
		inbox: newInbox(3, 1<<20), woken: make(chan struct{}, 1),
		server:  server{confirmed: from, timeout: walSenderTimeout},
		decoder: decoder.New(decoder.Source{SystemID: "7", Timeline: 1}),
		hooks:   hooks{ticked: func() {}, reported: func(pglogrepl.LSN) {}},
	}
	s.tracker = NewTracker(from, s.wake)
	r.stream = s
	go r.read()
	go r.write()
	s.report.begin(walSenderTimeout, time.Now())
	if err := s.keepReporting(time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop, stopNow := context.WithCancel(context.Background())
	r.cancel, r.stop = cancel, stopNow
	go func() { r.ended <- s.run(ctx, stop, sink) }()
	t.Cleanup(func() {
		cancel()
		stopNow()
		_ = theirs.Close()
		close(r.out)
	})
	return r
}

// read is the server's ear.
func (r *rig) read() {
	in := pgproto3.NewBackend(r.pipe, nil)
	for {
		m, err := in.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			r.heed(m.Data)
		case *pgproto3.CopyDone:
			r.mu.Lock()
			r.copyDone = true
			farewell := r.farewell
			r.mu.Unlock()
			if farewell != nil {
				farewell()
			}
			r.send(&pgproto3.CopyDone{}, &pgproto3.CommandComplete{CommandTag: []byte("COPY 0")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	}
}

func (r *rig) heed(data []byte) {
	if len(data) != 34 || data[0] != 'r' {
		r.t.Errorf("not a status: %x", data)
		return
	}
	lsn := func(at int) pglogrepl.LSN { return pglogrepl.LSN(binary.BigEndian.Uint64(data[at:])) }
	s := status{at: time.Now(), write: lsn(1), flush: lsn(9), apply: lsn(17), ask: data[33] != 0}
	r.mu.Lock()
	r.statuses = append(r.statuses, s)
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(s)
	}
}

// onStatus sets what is called for each status, on the server's reading goroutine.
func (r *rig) onStatus(answer func(status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// write is the server's mouth: what is sent waits here while the stream does not
// read.
func (r *rig) write() {
	for b := range r.out {
		if _, err := r.pipe.Write(b); err != nil {
			return
		}
	}
}

func (r *rig) send(messages ...pgproto3.BackendMessage) {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			r.t.Error(err)
		}
	}
	r.out <- b
}

func (r *rig) frames(frames ...fakewal.Frame) {
	for _, f := range frames {
		head := append([]byte{'w'}, make([]byte, 24)...)
		r.send(&pgproto3.CopyData{Data: append(head, f.Data...)})
	}
}

func (r *rig) keepalive(end pglogrepl.LSN, reply bool) {
	b := binary.BigEndian.AppendUint64([]byte{'k'}, uint64(end))
	b = append(b, make([]byte, 9)...)
	if reply {
		b[17] = 1
	}
	r.send(&pgproto3.CopyData{Data: b})
}

// reports returns what was reported so far.
func (r *rig) reports() []status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]status(nil), r.statuses...)
}

// last returns the last report.
func (r *rig) last() status {
	r.t.Helper()
	all := r.reports()
	if len(all) == 0 {
		r.t.Fatal("nothing was reported")
	}
	return all[len(all)-1]
}

// end waits until run has returned, for an hour of the bubble's time.
func (r *rig) end() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(time.Hour):
		r.t.Fatal("the stream goes on")
		return nil
	}
}

// lone is a message outside of a transaction.
func lone(lsn pglogrepl.LSN) fakewal.Frame { return fakewal.Message(lsn, false, "amqp", []byte("m")) }

// transaction is one with a message; its commit record is at commit.
func transaction(message, commit, end pglogrepl.LSN) []fakewal.Frame {
	now := time.Now()
	return []fakewal.Frame{
		fakewal.Begin(7, commit, now), fakewal.Message(message, true, "amqp", []byte("m")), fakewal.Commit(commit, end, now),
	}
}
