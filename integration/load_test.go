package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// loadQueue is the queue that a load publishes to, at each broker.
const loadQueue = "load"

// loadOptions describes traffic. The zero value runs until stop.
type loadOptions struct {
	sessions     int // 0 is 4
	transactions int // of each session; 0 is no limit
	pause        time.Duration
	seed         uint64 // 0 is a random one, which is logged
	ledger       bool   // each transaction also writes its messages into a table, see ledger

	arguments amqp.Table // of the queue
	// transaction is what a session does again and again; nil is load.transaction. name is unique.
	transaction func(ctx context.Context, conn *pgx.Conn, random *rand.Rand, name string) (committed bool, err error)
	// leave, when it changes, makes sessions give up their connections between two transactions.
	leave *atomic.Int64
}

// load is sessions that publish at the same time: some messages a transaction, to all
// brokers in turn, with rollbacks, savepoints that are rolled back, and autonomous messages.
// The body of a message says where it comes from. Sessions that lose their connection
// make a new one, as an application would.
type load struct {
	w       *world
	options loadOptions
	end     context.CancelFunc
	ended   sync.WaitGroup

	mu       sync.Mutex // guards all below
	commits  int
	rollback int
	errors   int
}

// startLoad declares the queue and starts the sessions. Whatever happens they end with the test.
func (w *world) startLoad(o loadOptions) *load {
	w.t.Helper()
	if o.sessions == 0 {
		o.sessions = 4
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	w.t.Logf("load with seed %d", o.seed)
	for i := range w.vhosts {
		declare(w.t, w.channel(i+1), o.arguments, loadQueue)
	}
	if o.ledger {
		w.createLedger()
	}
	return w.startSessions(o)
}

// startSessions is startLoad for a test that has made what its load needs.
func (w *world) startSessions(o loadOptions) *load {
	w.t.Helper()
	ctx, end := context.WithCancel(w.t.Context())
	l := &load{w: w, options: o, end: end}
	if o.transaction == nil {
		l.options.transaction = l.transaction
	}
	if o.leave == nil {
		l.options.leave = new(atomic.Int64)
	}
	for session := range o.sessions {
		l.ended.Go(func() { l.session(ctx, session) })
	}
	w.t.Cleanup(l.stop)
	return l
}

// stop ends the sessions, each behind its current transaction.
func (l *load) stop() {
	l.end()
	l.ended.Wait()
}

// wait waits until all transactions are done.
func (l *load) wait() {
	l.w.t.Helper()
	l.ended.Wait()
	if _, _, failed := l.counts(); failed > 0 {
		l.w.t.Errorf("%d transactions of the load have failed", failed)
	}
}

// counts returns how many transactions were committed, rolled back, and failed. What became
// of a failed one is not known.
func (l *load) counts() (committed, rolledBack, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits, l.rollback, l.errors
}

// waitCommits waits until n more transactions are committed.
func (l *load) waitCommits(n int) {
	l.w.t.Helper()
	before, _, _ := l.counts()
	await(l.w.t, time.Minute, fmt.Sprintf("%d more commits", n), func() bool {
		now, _, _ := l.counts()
		return now >= before+n
	})
}

// session runs transactions until ctx ends or it has done enough.
func (l *load) session(ctx context.Context, session int) {
	random := rand.New(rand.NewPCG(l.options.seed, uint64(session)))
	alive := context.WithoutCancel(ctx) // a transaction is not cut off by the end of the load
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(alive)
		}
	}()
	left := l.options.leave.Load()
	for n := 0; ctx.Err() == nil && (l.options.transactions == 0 || n < l.options.transactions); n++ {
		if now := l.options.leave.Load(); now != left && conn != nil {
			left = now
			_ = conn.Close(alive)
		}
		if conn == nil || conn.IsClosed() {
			conn = l.reconnect(ctx)
		}
		if conn == nil {
			return
		}
		limited, cancel := context.WithTimeout(alive, sqlLimit)
		committed, err := l.options.transaction(limited, conn, random, fmt.Sprintf("%d/%d", session, n))
		cancel()
		l.mu.Lock()
		switch {
		case err != nil:
			l.errors++
			_ = conn.Close(alive)
		case committed:
			l.commits++
		default:
			l.rollback++
		}
		l.mu.Unlock()
		pause(ctx, l.options.pause)
	}
}

// reconnect tries until it has a session, nil when ctx ends.
func (l *load) reconnect(ctx context.Context) *pgx.Conn {
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := pgx.Connect(limited, l.w.url())
		cancel()
		if err == nil {
			return conn
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// transaction publishes one to five messages.
func (l *load) transaction(ctx context.Context, conn *pgx.Conn, random *rand.Rand, name string) (committed bool, err error) {
	brokers := len(l.w.vhosts)
	publish := func(function, body string) {
		if err == nil {
			statement := `select amqp.` + function + `($1, '', $2, $3::text)`
			if l.options.ledger && function == "publish" {
				statement = enter + statement
			}
			_, err = conn.Exec(ctx, statement, 1+random.IntN(brokers), loadQueue, body)
		}
	}
	run := func(statement string) {
		if err == nil {
			_, err = conn.Exec(ctx, statement)
		}
	}
	run("begin")
	for i := range 1 + random.IntN(5) {
		message := fmt.Sprintf("%s/%d", name, i)
		switch random.IntN(8) {
		case 0:
			run("savepoint s")
			publish("publish", message+" rolled back to a savepoint")
			run("rollback to s")
		case 1:
			publish("autonomous_publish", message+" autonomous")
		}
		publish("publish", message)
	}
	committed = random.IntN(4) > 0
	if committed {
		run("commit")
	} else {
		run("rollback")
	}
	return committed, err
}

// pause waits, unless ctx ends: this is the pace of the load, nothing is awaited by it.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
