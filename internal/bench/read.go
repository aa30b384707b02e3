package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/metrics"
	"github.com/pgamqp/pgamqp/replication"
)

// statusEvery is more often than wal_sender_timeout asks for.
const statusEvery = 10 * time.Second

// readOnly is the limit of reading: the usual loop on pglogrepl, which decodes and counts.
func readOnly(ctx context.Context, t *task) (result, error) {
	config, err := pgconn.ParseConfig(t.Database)
	if err != nil {
		return result{}, err
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pglogrepl.StartReplication(ctx, conn, t.Slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: []string{
		"proto_version '1'", "publication_names 'pgamqp'", "messages 'true'",
	}})
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	reported := began
	var first float64
	var at pglogrepl.LSN
	for n := 0; n < t.Messages; {
		raw, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return result{}, err
		}
		data, ok := raw.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		x, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			return result{}, err
		}
		m, err := pglogrepl.Parse(x.WALData)
		if err != nil {
			return result{}, err
		}
		at = max(at, x.WALStart)
		if _, ok := m.(*pglogrepl.LogicalDecodingMessage); ok {
			if n++; n == 1 {
				first = since(began).Seconds
			}
		}
		if n%1000 == 0 && at != 0 && time.Since(reported) > statusEvery {
			reported = time.Now()
			if err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: at}); err != nil {
				return result{}, err
			}
		}
	}
	r := since(began)
	r.First = first
	r.Walsender = secondsOf(int(conn.PID()))
	return r, nil
}

// readAndForget is pgamqp without a broker: its own stream, decoder, positions and reports, and
// a sink that reads the envelope and takes every message at once.
func readAndForget(ctx context.Context, t *task) (result, error) {
	config, err := pgconn.ParseConfig(t.Database)
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var began time.Time
	var r result
	var session *replication.Session
	sink := &nullSink{left: t.Messages}
	sink.last = func() {
		r = since(began)
		r.First = sink.first.Sub(began).Seconds()
		r.Walsender = secondsOf(int(session.PID()))
		cancel()
	}
	session, err = replication.NewSession(replication.Config{
		Postgres: func() *pgconn.Config { return config }, Slot: t.Slot, Publication: "pgamqp", InboxMessages: 512, InboxBytes: 4 << 20,
		ShutdownTimeout: 10 * time.Second,
		Started: func(context.Context, replication.Start) (replication.Begun, error) {
			began = time.Now()
			return replication.Begun{}, nil
		},
	}, slog.New(slog.DiscardHandler), metrics.NewReplication(prometheus.NewRegistry(), t.Slot))
	if err != nil {
		return result{}, err
	}
	if err := session.Run(ctx, sink); err != nil {
		return result{}, err
	}
	if sink.left > 0 {
		return result{}, fmt.Errorf("read %d messages too few", sink.left)
	}
	return r, sink.err
}

// nullSink takes messages and has them done at once.
type nullSink struct {
	left  int
	first time.Time // when the first one came
	last  func()    // is called with the last one
	err   error
}

func (s *nullSink) Publish(_ context.Context, m decoder.Message, done func()) error {
	if s.first.IsZero() {
		s.first = time.Now()
	}
	_, err := decoder.ParseEnvelope(m.Content)
	s.err = errors.Join(s.err, err)
	done()
	if s.left--; s.left == 0 {
		s.last()
	}
	return nil
}

func (s *nullSink) Drain(context.Context) error { return nil }

// receive is PostgreSQL's own reader, which decodes nothing.
func (w *world) receive(ctx context.Context, b *backlog, program string) (Sample, error) {
	slot, err := w.copySlot(ctx, b)
	if err != nil {
		return nil, err
	}
	address, environment := forTools(b.address)
	cmd := exec.CommandContext(ctx, program, "--dbname", address, "--slot", slot, "--start", "--no-loop", "--file", "/dev/null",
		"--fsync-interval", "0", "--endpos", b.until.String(),
		"-o", "proto_version=1", "-o", "publication_names=pgamqp", "-o", "messages=true")
	cmd.Env = append(os.Environ(), environment...)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pg_recvlogical: %w\n%s", err, out)
	}
	r := since(began)
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return Sample{
		colRate:   float64(b.messages) / r.Seconds,
		colClient: float64(used.Microseconds()) / float64(b.messages),
	}, w.dropSlot(ctx, slot)
}

// read lets a worker read a backlog.
func (w *world) read(ctx context.Context, b *backlog, kind string) (Sample, error) {
	slot, err := w.copySlot(ctx, b)
	if err != nil {
		return nil, err
	}
	s, err := w.work(ctx, &task{Kind: kind, Database: b.address, Slot: slot, Messages: b.messages})
	if err != nil {
		return nil, err
	}
	return s, w.dropSlot(ctx, slot)
}
