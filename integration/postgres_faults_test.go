package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// A transaction that began before others and ends after them comes whole, also when the
// others are confirmed and the daemon was restarted in between. Order is that of commits.
func TestP05TransactionThatIsOpenWhileNewerOnesAreConfirmedIsNotLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start()
	conn := w.connect()
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'begun first')`)
	var want []string
	for i, end := range []func(){func() { d.stop() }, func() { d.kill() }} {
		body := fmt.Sprintf("newer %d", i)
		w.exec(`select amqp.publish(1, '', 'q', $1::text)`, body)
		want = append(want, body)
		w.waitDelivered()
		end()
		d = w.start()
	}
	run(t, conn, `select amqp.publish(1, '', 'q', 'committed last')`)
	run(t, conn, `commit`)
	compare(append(want, "begun first", "committed last"), w.received(1, "q")).wantExact(t)
}

// The WAL since the start of an open transaction is kept, in whatever database, although all
// of it is confirmed. The numbers tell, and the warning names the session.
func TestP15TransactionThatHoldsTheWALIsNamed(t *testing.T) {
	t.Parallel()
	postgres := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_wal_size": "32MB", "min_wal_size": "32MB"}})
	w := newWorld(t, worldOptions{postgres: postgres})
	d := w.start()
	ctx := withDeadline(t, 2*sqlLimit)
	if err := postgres.CreateDatabase(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, postgres.URL("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	run(t, conn, `create table t ()`)
	run(t, conn, `begin`)
	run(t, conn, `insert into t default values`)
	w.fillSegments(6)
	w.exec(`checkpoint`)
	d.waitLog("slot is in danger of being lost")
	d.wantLog(fmt.Sprintf(`wal_status=extended .*an open transaction keeps the WAL.*the oldest is session %d of role postgres in database other, begun `, conn.PgConn().PID()))
	await(t, startLimit, "the metrics tell retained from unconfirmed", func() bool {
		return d.reading("pgamqp_slot_retained_wal_bytes") > 64<<20 && d.reading("pgamqp_slot_lag_bytes") < 1<<20
	})
	run(t, conn, `rollback`)
	await(t, time.Minute, "the slot is out of danger", func() bool {
		w.exec(`checkpoint`) // writes what lets the slot move on
		return strings.Contains(d.log.String(), "slot is out of danger")
	})
}

func TestP31AndP32StreamSurvivesTheEndOfItsServerProcess(t *testing.T) {
	t.Parallel()
	postgres := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: postgres})
	h := w.history()
	d := w.start()
	l := w.startLoad(restartLoad())
	const walsender = `select active_pid from pg_replication_slots where slot_name = $1`
	for _, c := range []struct {
		name string
		end  func(pid int)
	}{
		{"terminated", func(pid int) { w.exec(`select pg_terminate_backend($1)`, pid) }},
		{"killed, with which the server restarts", func(pid int) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}},
	} {
		l.waitCommits(50)
		began := time.Now()
		before := value[int](w, walsender, w.slot)
		c.end(before)
		await(t, startLimit, "another process serves the stream", func() bool {
			var now *int
			conn, err := pgx.Connect(withDeadline(t, sqlLimit), w.url())
			if err != nil {
				return false // it restarts
			}
			defer func() { _ = conn.Close(withDeadline(t, sqlLimit)) }()
			err = conn.QueryRow(withDeadline(t, sqlLimit), walsender, w.slot).Scan(&now)
			return err == nil && now != nil && *now != before
		})
		t.Logf("%s: streaming again after %s", c.name, time.Since(began).Round(time.Millisecond))
		if !d.running() {
			t.Fatalf("%s: the daemon has ended", c.name)
		}
	}
	l.waitCommits(50)
	l.stop()
	got := w.received(1, loadQueue) // before history is asked: it sees what is on disk
	compare(h.bodies(1), got).wantComplete(t)
	w.checkLeftovers(d)
}

func TestP53ServerWithoutRoomForAnotherWalsenderIsWaitedFor(t *testing.T) {
	t.Parallel()
	postgres := ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_wal_senders": "1"}})
	w := newWorld(t, worldOptions{postgres: postgres})
	first := w.start()
	second := w.launch()
	second.waitLog("stream ended, trying again")
	second.wantLog(`\(SQLSTATE 53300\).*raise max_wal_senders`)
	first.kill()
	second.waitReady()
}
