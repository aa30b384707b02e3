package integration

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// silentPort returns a port that takes connections and never says anything.
func silentPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			all = append(all, c)
		}
		for _, c := range all {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().(*net.TCPAddr).Port
}

// Whatever is wrong with a definition: it costs a few attempts, disturbs no other broker, and can be
// corrected.
func TestDeadBrokerDefinitionsAreNotTriedInAHotLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	type row struct {
		host, vhost, password string
		port                  int
	}
	right := row{w.rabbit.Host(), w.vhosts[0], "guest", w.rabbit.Port()}
	wrong := func(change func(*row)) row {
		r := right
		change(&r)
		return r
	}
	closed := wrong(func(r *row) { r.port = closedPort(t) })
	silent := wrong(func(r *row) { r.port = silentPort(t) })
	postgres := wrong(func(r *row) { r.port = w.postgres.Port() })
	host := wrong(func(r *row) { r.host = "nowhere.invalid" })
	password := wrong(func(r *row) { r.password = wrongPassword })
	vhost := wrong(func(r *row) { r.vhost = "no such vhost" })

	// Attempts in ten seconds: an unreachable host is tried once a second on average, one that
	// refuses the login about five times in the first ten seconds, then every 15 seconds.
	const period = 10 * time.Second
	definitions := []struct {
		name string
		rows []row
		most float64
	}{
		{"no listener", []row{closed}, 40},
		{"silent", []row{silent}, 3},
		{"another protocol", []row{postgres}, 40},
		{"no such host", []row{host}, 40},
		{"wrong password", []row{password}, 12},
		{"missing virtual host", []row{vhost}, 20},
		{"several hosts", []row{closed, postgres, host}, 120},
		{"several ways", []row{password, silent}, 15},
	}
	first := 10
	for i, definition := range definitions {
		for n, r := range definition.rows {
			h := r.host
			if n > 0 && h == right.host && r.port == definition.rows[n-1].port {
				h = "localhost" // the key is broker, host and port
			}
			w.exec(`insert into amqp.broker (broker_id, host, port, vhost, username, password) values ($1, $2, $3, $4, 'guest', $5)`,
				first+i, h, r.port, r.vhost, r.password)
		}
	}
	// All attempts are those of one stream: a broker that is detached would begin anew.
	d := w.start("--detach-after", "0s")
	for i := range definitions {
		w.exec(`select amqp.publish($1, '', 'q', 'waits ' || $1::int)`, first+i)
	}
	began := time.Now()
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 100) n`)
	await(t, consumeLimit, "the broker that works gets its messages", func() bool {
		return d.shows(`pgamqp_confirmed_messages_total{broker="1",exchange="(AMQP default)"} 100`)
	})
	compare(good(100), w.take(1, "q")).wantExact(t)

	await(t, 2*period, "ten seconds are over", func() bool { return time.Since(began) > period })
	seconds := time.Since(began).Seconds()
	var all []string
	for i, definition := range definitions {
		label := fmt.Sprintf(`broker="%d"`, first+i)
		attempts := d.metric("pgamqp_broker_connects_total", label)
		t.Logf("%s: %v attempts in %.1f s", definition.name, attempts, seconds)
		if attempts > definition.most*max(1, seconds/period.Seconds()) {
			t.Errorf("%s: %v attempts in %.1f s", definition.name, attempts, seconds)
		}
		if ok := d.metric("pgamqp_broker_connects_total", label, `result="ok"`); ok != 0 {
			t.Errorf("%s: connected %v times", definition.name, ok)
		}
		all = append(all, fmt.Sprint("waits ", first+i))
	}
	if denied := d.metric("pgamqp_broker_connects_total", `broker="14"`, `result="denied"`); denied < 1 {
		t.Error("a wrong password does not count as denied")
	}

	// Corrected, whether its next turn is near or far.
	w.script(
		`begin`,
		`create temp table ids as select distinct broker_id from amqp.broker where broker_id <> 1`,
		`delete from amqp.broker where broker_id <> 1`,
		`insert into amqp.broker (broker_id, host, port, vhost) select i.broker_id, b.host, b.port, b.vhost from ids i, amqp.broker b where b.broker_id = 1`,
		`commit`,
	)
	w.waitDelivered()
	got := bodies(w.take(1, "q"))
	slices.Sort(got)
	if !slices.Equal(got, all) {
		t.Errorf("%q came, want %q", got, all)
	}
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
