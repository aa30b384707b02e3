package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
)

// chaosLoad returns transactions that do a bit of everything. Every message has a body of its own,
// which begins with its name; the name tells of the round, the session and the transaction.
func (c *chaos) chaosLoad(round int) func(context.Context, *pgx.Conn, *rand.Rand, string) (bool, error) {
	return func(ctx context.Context, conn *pgx.Conn, random *rand.Rand, name string) (bool, error) {
		tx := &chaosTransaction{ctx: ctx, conn: conn, random: random, name: fmt.Sprintf("%d/%s", round, name), brokers: len(c.brokers)}
		tx.session, _, _ = strings.Cut(name, "/")
		// All is drawn before anything can fail, so that what a session does depends on the seed alone.
		switch n := random.IntN(1000); {
		case n < 200:
			tx.batch()
			return true, tx.err
		case n < 202:
			tx.big()
			return true, tx.err
		case n < 220:
			return tx.redeliver()
		case n < 235:
			tx.declare()
			return true, tx.err
		case n < 400:
			return tx.rows()
		}
		return tx.usual()
	}
}

// chaosTransaction is one transaction, or statement, of the load.
type chaosTransaction struct {
	ctx     context.Context //nolint:containedctx // lives as long as one call
	conn    *pgx.Conn
	random  *rand.Rand
	name    string
	session string
	brokers int
	count   int
	err     error
}

func (tx *chaosTransaction) run(statement string, args ...any) {
	if tx.err == nil {
		_, tx.err = tx.conn.Exec(tx.ctx, statement, args...)
	}
}

// target draws where a message goes: mostly to a queue, sometimes to where none is.
func (tx *chaosTransaction) target() (broker int, exchange, key string) {
	broker = 1 + tx.random.IntN(tx.brokers)
	switch n := tx.random.IntN(100); {
	case n < 68:
		return broker, "", loadQueue
	case n < 78:
		return broker, "", chaosNarrow
	case n < 94:
		return broker, chaosFleeting, chaosFragile
	case n < 97:
		return broker, chaosFleeting, "nowhere"
	default:
		return broker, "missing", ""
	}
}

// body draws the next message: a name and what fills it up.
func (tx *chaosTransaction) body() string {
	tx.count++
	size := tx.random.IntN(200)
	switch n := tx.random.IntN(200); {
	case n < 1:
		size = tx.random.IntN(300_000)
	case n < 8:
		size = tx.random.IntN(20_000)
	}
	return fmt.Sprintf("%s/%d %s", tx.name, tx.count, strings.Repeat("x", size))
}

func (tx *chaosTransaction) publish(function string) {
	broker, exchange, key := tx.target()
	tx.run(`select amqp.`+function+`($1, $2, $3, $4::text)`, broker, exchange, key, tx.body())
}

// usual publishes some messages, with savepoints that are rolled back, and autonomous ones.
func (tx *chaosTransaction) usual() (committed bool, err error) {
	tx.run("begin")
	for range 1 + tx.random.IntN(5) {
		switch tx.random.IntN(8) {
		case 0:
			tx.run("savepoint s")
			tx.publish("publish")
			tx.run("rollback to s")
		case 1:
			tx.publish("autonomous_publish")
		}
		tx.publish("publish")
	}
	return tx.finish(tx.random.IntN(4) > 0)
}

func (tx *chaosTransaction) finish(commit bool) (committed bool, err error) {
	if commit {
		tx.run("commit")
	} else {
		tx.run("rollback")
	}
	return commit, tx.err
}

// batch writes units side by side, with not a byte between them: autonomous messages in one
// message of the protocol.
func (tx *chaosTransaction) batch() {
	var text strings.Builder
	for range 5 + tx.random.IntN(40) {
		broker, exchange, key := tx.target()
		fmt.Fprintf(&text, "select amqp.autonomous_publish(%d, '%s', '%s', '%s');", broker, exchange, key, tx.body())
	}
	if tx.err == nil {
		_, tx.err = tx.conn.PgConn().Exec(tx.ctx, text.String()).ReadAll()
	}
}

// big is a transaction that fills every window some times over.
func (tx *chaosTransaction) big() {
	tx.run(`select amqp.publish(1 + i % $1::int, '', $2, $3::text || i || ' big') from generate_series(1, $4::int) i`,
		tx.brokers, loadQueue, tx.name+"/", 1000+tx.random.IntN(3000))
}

// redeliver sends dead letters again, some of them for good.
func (tx *chaosTransaction) redeliver() (committed bool, err error) {
	one, broker, commit := tx.random.IntN(2) == 0, 1+tx.random.IntN(tx.brokers), tx.random.IntN(4) > 0
	tx.run("begin")
	if one {
		tx.run(`select amqp.redeliver(id) from amqp.dead_letter order by random() limit 1`)
	} else {
		tx.run(`select amqp.redeliver_all($1, max_messages => 30)`, broker)
	}
	return tx.finish(commit)
}

// rows changes rows: each session has some of its own, so that none waits for another. In between it publishes.
func (tx *chaosTransaction) rows() (committed bool, err error) {
	tx.run("begin")
	for range 1 + tx.random.IntN(8) {
		broker, key := 1+tx.random.IntN(tx.brokers), loadQueue
		if tx.random.IntN(20) == 0 {
			key = "nowhere"
		}
		tx.run(fmt.Sprintf(`insert into public.rows_%d values ($1, $2, $3)
			on conflict (id) do update set target = excluded.target, content = excluded.content`, broker),
			fmt.Sprintf("%s/%d", tx.session, tx.random.IntN(10)), key, tx.body())
		if tx.random.IntN(4) == 0 {
			tx.publish("publish")
		}
	}
	return tx.finish(tx.random.IntN(4) > 0)
}

// declare asks for what is there already, or for what is refused.
func (tx *chaosTransaction) declare() {
	broker := 1 + tx.random.IntN(tx.brokers)
	switch tx.random.IntN(4) {
	case 0:
		tx.run(`select amqp.queue_declare($1, $2, passive => true)`, broker, loadQueue)
	case 1:
		tx.run(`select amqp.queue_bind($1, $2, $2, $3)`, broker, chaosNarrow, "no such binding")
	case 2:
		tx.run(`select amqp.exchange_declare($1, 'declared', 'topic', false, true)`, broker)
	case 3:
		tx.run(`select amqp.disconnect($1)`, broker)
	}
}
