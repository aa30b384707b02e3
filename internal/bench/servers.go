package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// world is the servers of a run, and what the run has made there: databases, slots, a queue and
// exchanges whose names begin with name.
type world struct {
	options  Options
	progress Progress
	name     string

	postgresURL string    // of the server, as an administrator
	databaseURL string    // of the bench's own database
	admin       *pgx.Conn // to the server's own database
	db          *pgx.Conn // to the bench's own database
	broker      amqp.URI
	brokerPID   int
	caFile      string // that signs the private servers' certificates; empty without TLS
	machine     map[string]string

	notes   []string       // for the report
	made    int            // databases and slots so far
	closers []func() error // called in reverse order
}

// open starts or reaches the servers and installs pgamqp in a database of its own.
func open(ctx context.Context, o Options) (_ *world, err error) {
	w := &world{options: o, progress: o.Progress, name: "pgamqp_bench_" + strings.ToLower(rand.Text()[:8])}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if o.DatabaseURL == "" {
		w.progress.Begin(0, 0, "starting private servers")
		err = w.startServers()
	} else {
		w.progress.Begin(0, 0, "installing pgamqp in database "+w.name)
		w.postgresURL, w.brokerPID = o.DatabaseURL, o.BrokerPID
		w.broker, err = amqp.ParseURI(o.BrokerURL)
	}
	if err != nil {
		return nil, err
	}
	if err := w.install(ctx); err != nil {
		return nil, err
	}
	if err := w.describeMachine(ctx); err != nil {
		return nil, err
	}
	w.progress.End("")
	return w, nil
}

// startServers starts private ones that keep what they confirm, as those that are used for
// something do.
func (w *world) startServers() error {
	postgres := testserver.PostgresOptions{Version: w.options.PostgresVersion, Durable: true, Settings: map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "max_connections": "200",
	}}
	rabbit := testserver.RabbitMQOptions{Version: w.options.RabbitMQVersion}
	if w.options.TLS {
		certificate, err := testserver.SelfSigned()
		if err == nil {
			err = w.trust(certificate.Certificate)
		}
		if err != nil {
			return err
		}
		postgres.TLS, rabbit.TLS = certificate, certificate
	}
	var g errgroup.Group
	var p *testserver.Postgres
	var r *testserver.RabbitMQ
	g.Go(func() (err error) { p, err = testserver.StartPostgres(postgres); return err })
	g.Go(func() (err error) { r, err = testserver.StartRabbitMQ(rabbit); return err })
	err := g.Wait()
	if p != nil {
		w.closers = append(w.closers, p.Close)
	}
	if r != nil {
		w.closers = append(w.closers, r.Close)
	}
	if err != nil {
		return fmt.Errorf("start private servers: %w", err)
	}
	w.postgresURL = p.URL("postgres")
	switch {
	case w.options.TLS:
		w.postgresURL = strings.Replace(w.postgresURL, "sslmode=disable", "sslmode=require", 1)
	case w.options.Socket:
		w.postgresURL = fmt.Sprintf("postgres:///postgres?user=postgres&port=%d&host=%s", p.Port(), url.QueryEscape(p.SocketDir()))
	}
	w.brokerPID = r.PID()
	if w.broker, err = amqp.ParseURI(r.URL("/")); err == nil && w.options.TLS {
		w.broker.Scheme, w.broker.Port = "amqps", r.TLSPort()
		w.broker.Host = "localhost" // as in the certificate
	}
	return err
}

// trust keeps a certificate in a file, for the clients.
func (w *world) trust(certificate []byte) error {
	file, err := os.CreateTemp("", "pgamqp-bench-*.crt")
	if err != nil {
		return err
	}
	w.caFile = file.Name()
	w.closers = append(w.closers, func() error { return os.Remove(w.caFile) })
	_, err = file.Write(certificate)
	return errors.Join(err, file.Close())
}

// install makes the database that all others are copies of. Its slot is not needed: each run has a
// copy of one that stands at the start of a backlog.
func (w *world) install(ctx context.Context) error {
	var err error
	if w.admin, err = pgx.Connect(ctx, w.postgresURL); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	w.closers = append(w.closers, func() error { return w.admin.Close(context.Background()) }, w.dropDatabases)
	template := w.template()
	if _, err := w.admin.Exec(ctx, "create database "+template); err != nil {
		return fmt.Errorf("create database %s: %w", template, err)
	}
	address, err := withDatabase(w.postgresURL, template)
	if err != nil {
		return err
	}
	c, err := w.start(nil, databaseEnvironment(address), "install", "--slot", w.name)
	if err != nil {
		return err
	}
	if err := c.wait(ctx); err != nil {
		return err
	}
	if err := w.dropSlot(ctx, w.name); err != nil {
		return err
	}
	err = inDatabase(ctx, address, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `insert into amqp.broker (broker_id, host, port, vhost, username, password, tls) values (1, $1, $2, $3, $4, $5, $6)`,
			w.broker.Host, w.broker.Port, w.broker.Vhost, w.broker.Username, w.broker.Password, w.broker.Scheme == "amqps")
		return err
	})
	if err != nil {
		return fmt.Errorf("insert broker: %w", err)
	}
	if w.databaseURL, err = w.newDatabase(ctx, w.name); err != nil {
		return err
	}
	if w.db, err = pgx.Connect(ctx, w.databaseURL); err != nil {
		return fmt.Errorf("connect to database %s: %w", w.name, err)
	}
	w.closers = append(w.closers, func() error { return w.db.Close(context.Background()) })
	return nil
}

func (w *world) template() string { return w.name + "_template" }

// newDatabase makes one with pgamqp in it and returns its URL. A slot reads its own database only,
// so a daemon on one finds nothing but what was published there.
func (w *world) newDatabase(ctx context.Context, name string) (string, error) {
	if _, err := w.admin.Exec(ctx, "create database "+name+" template "+w.template()); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return withDatabase(w.postgresURL, name)
}

// databaseEnvironment tells the program which database to use, with the password if there is one,
// where no list of processes shows it.
func databaseEnvironment(address string) []string { return []string{"PGAMQP_DATABASE_URL=" + address} }

// forTools returns a connection string without its password for the command line of PostgreSQL's own
// programs, and the password for their environment.
func forTools(address string) (public string, environment []string) {
	u, err := url.Parse(address)
	if err != nil {
		return address, nil // was read before
	}
	if password, given := u.User.Password(); given {
		u.User = url.User(u.User.Username())
		environment = []string{"PGPASSWORD=" + password}
	}
	return u.String(), environment
}

// inDatabase opens a session for a while.
func inDatabase(ctx context.Context, address string, use func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return use(conn)
}

// dropDatabases removes all that begin with the name, and their slots.
func (w *world) dropDatabases() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rows, _ := w.admin.Query(ctx, `select datname::text from pg_database where starts_with(datname, $1)`, w.name) // the error is CollectRows'
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range databases {
		err = errors.Join(err, w.dropDatabase(ctx, name))
	}
	return err
}

func (w *world) dropDatabase(ctx context.Context, name string) error {
	rows, _ := w.admin.Query(ctx, `select slot_name::text from pg_replication_slots where database = $1`, name) // the error is CollectRows'
	slots, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, slot := range slots {
		err = errors.Join(err, w.dropSlot(ctx, slot))
	}
	if _, failed := w.admin.Exec(ctx, "drop database "+name+" with (force)"); failed != nil {
		err = errors.Join(err, fmt.Errorf("drop database %s: %w", name, failed))
	}
	return err
}

// describeMachine notes what a reader of the figures has to know.
func (w *world) describeMachine(ctx context.Context) error {
	var postgres string
	if err := w.db.QueryRow(ctx, `select current_setting('server_version')`).Scan(&postgres); err != nil {
		return err
	}
	conn, err := w.target().dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	w.machine = machine()
	w.machine["PostgreSQL"] = postgres
	w.machine["RabbitMQ"] = fmt.Sprint(conn.Properties["version"])
	return nil
}

// withBroker opens a channel for a while.
func (w *world) withBroker(use func(*amqp.Channel) error) error {
	conn, err := w.target().dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return use(ch)
}

// close ends all that open has begun.
func (w *world) close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	return errors.Join(errs...)
}

// withDatabase returns a connection string with another database.
func withDatabase(text, database string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", errors.New("--database-url must be a URL here: postgres://user@host/database")
	}
	u.Path = "/" + database
	return u.String(), nil
}
