package demo

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const (
	database = "demo"
	exchange = "demo"
	queue    = "demo"
)

//go:embed setup.sql
var setupSQL string

// world is the servers of one demo.
type world struct {
	options  Options
	postgres *testserver.Postgres
	brokers  []*broker
	db       *pgx.Conn
	folder   string
	daemon   *exec.Cmd
	output   lockedBuffer // of the daemon
	listen   string
}

// broker is one RabbitMQ node with a connection to consume from it.
type broker struct {
	id     int
	server *testserver.RabbitMQ
	conn   *amqp.Connection
}

// startServers starts PostgreSQL and so many brokers, at the same time.
func (w *world) startServers(ctx context.Context, brokers int) error {
	var g errgroup.Group
	g.Go(func() error {
		var err error
		w.postgres, err = testserver.StartPostgres(testserver.PostgresOptions{
			Settings: map[string]string{"track_commit_timestamp": "on"}, // for the latencies
		})
		return err
	})
	w.brokers = make([]*broker, brokers)
	for i := range w.brokers {
		g.Go(func() error {
			server, err := testserver.StartRabbitMQ(testserver.RabbitMQOptions{})
			if err == nil {
				w.brokers[i] = &broker{id: i + 1, server: server}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("start servers: %w", err)
	}
	if err := w.postgres.CreateDatabase(ctx, database); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	var err error
	if w.folder, err = os.MkdirTemp("", "pgamqp-demo-"); err != nil {
		return err
	}
	w.db, err = pgx.Connect(ctx, w.postgres.URL(database))
	return err
}

// startDaemon installs pgamqp, runs the SQL that sets up topology and tables, starts the program,
// and waits until it is ready.
func (w *world) startDaemon(ctx context.Context, setup string) error {
	install := exec.CommandContext(ctx, w.options.Program, "install", "--database-url", w.postgres.URL(database))
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("pgamqp install: %w\n%s", err, out)
	}
	for _, b := range w.brokers {
		_, err := w.db.Exec(ctx, `insert into amqp.broker (broker_id, host, port) values ($1, $2, $3)`,
			b.id, b.server.Host(), b.server.Port())
		if err != nil {
			return fmt.Errorf("insert broker: %w", err)
		}
	}
	if _, err := w.db.Exec(ctx, setup); err != nil {
		return fmt.Errorf("set up the demo's table and topology: %w", err)
	}
	w.daemon = exec.Command(w.options.Program, "run", "--database-url", w.postgres.URL(database),
		"--listen", "127.0.0.1:0", "--log-format", "text", "--log-level", "info") // the log says which port that is
	w.daemon.Stderr = &w.output
	if err := testserver.StartChild(w.daemon); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	return w.waitReady(ctx)
}

// listening matches the line of the daemon's log that says where it listens.
var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// waitReady waits until the daemon is ready and has declared the queues.
func (w *world) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !w.isReady() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("daemon did not become ready:\n%s", w.output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	var delivered bool
	if err := w.db.QueryRow(ctx, `select amqp.wait_delivered()`).Scan(&delivered); err != nil || !delivered {
		return fmt.Errorf("declarations were not delivered: %w\n%s", err, w.output.String())
	}
	return nil
}

// isReady asks the daemon, once its log says where.
func (w *world) isReady() bool {
	match := listening.FindStringSubmatch(w.output.String())
	if match == nil {
		return false
	}
	w.listen = match[1]
	r, err := http.Get("http://" + w.listen + "/readyz") //nolint:noctx // loopback, bounded by who asks
	if err != nil {
		return false
	}
	_ = r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// hints prints how to look at the running servers.
func (w *world) hints() {
	p := func(what, how string) { fmt.Fprintf(w.options.Out, "  %-20s %s\n", what, how) }
	p("PostgreSQL", "psql "+w.postgres.URL(database))
	for _, b := range w.brokers {
		p(fmt.Sprintf("RabbitMQ, broker %d", b.id), b.server.ManagementURL()+" (guest, guest)")
	}
	p("pgamqp", "http://"+w.listen+"/metrics")
}

// publishLast sends the message that ends each broker's consumer, and waits until
// everything before it is confirmed.
func (w *world) publishLast(ctx context.Context) error {
	for _, b := range w.brokers {
		if _, err := w.db.Exec(ctx, `select amqp.publish($1, $2, 'last', '0')`, b.id, exchange); err != nil {
			return fmt.Errorf("publish the last message: %w", err)
		}
	}
	var delivered bool
	if err := w.db.QueryRow(ctx, `select amqp.wait_delivered("timeout" => '2 minutes')`).Scan(&delivered); err != nil {
		return fmt.Errorf("wait for delivery: %w", err)
	}
	if !delivered {
		return fmt.Errorf("the daemon has not delivered everything within two minutes:\n%s", w.output.String())
	}
	return nil
}

func (w *world) close() {
	if w.db != nil {
		_ = w.db.Close(context.Background())
	}
	if w.daemon != nil && w.daemon.Process != nil {
		_ = w.daemon.Process.Signal(os.Interrupt)
		_ = w.daemon.Wait()
	}
	for _, b := range w.brokers {
		if b != nil {
			if b.conn != nil {
				_ = b.conn.Close()
			}
			_ = b.server.Close()
		}
	}
	if w.postgres != nil {
		_ = w.postgres.Close()
	}
	if w.folder != "" {
		_ = os.RemoveAll(w.folder)
	}
}

// consume opens a consumer of the broker's queue.
func (b *broker) consume() (<-chan amqp.Delivery, error) {
	var err error
	if b.conn, err = amqp.Dial(b.server.URL("/")); err != nil {
		return nil, fmt.Errorf("connect consumer to broker %d: %w", b.id, err)
	}
	ch, err := b.conn.Channel()
	if err != nil {
		return nil, err
	}
	return ch.Consume(queue, "", true, false, false, false, nil)
}

// writeScripts puts pgbench's scripts into the demo's folder.
func (w *world) writeScripts() ([]string, error) {
	var args []string
	for _, s := range scripts() {
		path := filepath.Join(w.folder, s.name+".sql")
		if err := os.WriteFile(path, []byte(s.sql), 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--file", fmt.Sprintf("%s@%d", path, s.weight))
	}
	return args, nil
}

// lockedBuffer collects output of a process.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
