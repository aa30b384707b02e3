package demo

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// seen is what consumers have received.
type seen struct {
	mu    sync.Mutex
	first map[int64]time.Time // by id, when it came first
	total int
	odd   []string // bodies that are no ids
}

func newSeen() *seen { return &seen{first: make(map[int64]time.Time)} }

// follow hands deliveries to take until the last message, or the end of ctx.
func follow(ctx context.Context, deliveries <-chan amqp.Delivery, take func(amqp.Delivery) error) error {
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return fmt.Errorf("consume: the broker has closed the connection")
			}
			if d.RoutingKey == "last" {
				return nil
			}
			if err := take(d); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take notes a delivery.
func (s *seen) take(d amqp.Delivery) error {
	s.add(string(d.Body), time.Now())
	return nil
}

func (s *seen) add(body string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	id, err := strconv.ParseInt(body, 10, 64)
	if err != nil {
		s.odd = append(s.odd, body)
		return
	}
	if _, again := s.first[id]; !again {
		s.first[id] = at
	}
}

func (s *seen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// load runs pgbench and shows how delivery keeps up.
func (w *world) load(ctx context.Context, s *seen) error {
	scripts, err := w.writeScripts()
	if err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, w.postgres.URL(database))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	return w.pgbench(ctx, w.loadArguments(append(scripts, "--no-vacuum")...), func(began time.Time, end string) {
		w.progress(ctx, db, began, s, end)
	})
}

// loadArguments adds to arguments of pgbench who works for how long.
func (w *world) loadArguments(args ...string) []string {
	args = append(args, "--client", "4", "--jobs", "2", "--time", strconv.Itoa(max(1, int(w.options.Duration.Seconds()))))
	if w.options.Rate > 0 {
		args = append(args, "--rate", strconv.Itoa(w.options.Rate))
	}
	return args
}

// pgbench runs pgbench with arguments, in the demo's database. tick, if not nil, is called now and then,
// and at the end with a newline.
func (w *world) pgbench(ctx context.Context, args []string, tick func(began time.Time, end string)) error {
	u, err := url.Parse(w.postgres.URL(database))
	if err != nil {
		return err
	}
	args = append(args, "--host", u.Hostname(), "--port", u.Port(), "--username", "postgres", database)
	command := exec.CommandContext(ctx, "pgbench", args...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := testserver.StartChild(command); err != nil {
		return fmt.Errorf("start pgbench: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }() // waits for pgbench
	pause := 200 * time.Millisecond
	if !w.options.Live {
		pause = 2 * time.Second
	}
	ticks := time.NewTicker(pause)
	defer ticks.Stop()
	began := time.Now()
	if tick == nil {
		tick = func(time.Time, string) {}
	}
	for {
		select {
		case err := <-done:
			tick(began, "\n")
			if err != nil {
				return fmt.Errorf("pgbench: %w\n%s", err, output.String())
			}
			return nil
		case <-ticks.C:
			tick(began, "")
		}
	}
}

// progress prints one line; on a terminal the next overwrites it.
func (w *world) progress(ctx context.Context, db *pgx.Conn, began time.Time, s *seen, end string) {
	var committed, lag int64
	err := db.QueryRow(ctx, `
		select (select count(*) from expected),
		       (select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint
		          from pg_replication_slots where slot_name = 'pgamqp')`).Scan(&committed, &lag)
	if err != nil {
		return // a line of progress less
	}
	line := fmt.Sprintf("  %4.1f s   committed %7d   delivered %7d   lag %6.1f kB", time.Since(began).Seconds(),
		committed, s.count(), float64(lag)/1e3)
	if w.options.Live {
		fmt.Fprintf(w.options.Out, "\r%s%s", line, end)
	} else {
		fmt.Fprintln(w.options.Out, line)
	}
}
