package integration

import (
	"slices"
	"testing"
	"time"
)

func TestP36AndP38AndP39CommittedMessagesArriveAndRolledBackOnesDoNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exec(`create function send(body text) returns boolean language sql as $$ select amqp.publish(1, '', 'q', body) $$`)
	w.exec(`create function send_now(body text) returns boolean language sql as $$ select amqp.autonomous_publish(1, '', 'q', body) $$`)
	w.start()

	for _, c := range []struct {
		name   string
		script []string
		want   []string
	}{
		{
			"each statement a transaction",
			[]string{`select send('a')`, `select send('b'), send('c')`, `select send(g::text) from generate_series(1, 3) g`},
			[]string{"a", "b", "c", "1", "2", "3"},
		},
		{
			"commit",
			[]string{`begin`, `select send('a')`, `select send('b')`, `commit`},
			[]string{"a", "b"},
		},
		{
			"rollback",
			[]string{`begin`, `select send('a')`, `rollback`, `select send('b')`},
			[]string{"b"},
		},
		{
			"end of a transaction that has failed",
			[]string{`begin`, `select send('a')`, `savepoint s`, `do $$ begin perform 1 / (select 0); exception when division_by_zero then end $$`, `rollback to s`, `rollback`},
			nil,
		},
		{
			"savepoints",
			[]string{
				`begin`, `select send('a')`, `savepoint s`, `select send('b')`, `rollback to s`, `select send('c')`,
				`savepoint t`, `select send('d')`, `release t`, `select send('e')`, `commit`,
			},
			[]string{"a", "c", "d", "e"},
		},
		{
			"savepoint released into one that is rolled back",
			[]string{
				`begin`, `select send('a')`, `savepoint outside`, `select send('b')`, `savepoint inside`, `select send('c')`,
				`release inside`, `select send('d')`, `rollback to outside`, `select send('e')`, `commit`,
			},
			[]string{"a", "e"},
		},
		{
			"exception block",
			[]string{`do $$
				begin
					perform send('a');
					begin
						perform send('b');
						raise exception 'oh';
					exception when raise_exception then
						perform send('c');
					end;
					begin
						perform send('d');
					exception when others then
						null;
					end;
				end $$`},
			[]string{"a", "c", "d"},
		},
		{
			"commits and rollbacks inside a procedure",
			[]string{`do $$
				begin
					for i in 1 .. 4 loop
						perform send(i::text);
						if i % 2 = 0 then commit; else rollback; end if;
					end loop;
				end $$`},
			[]string{"2", "4"},
		},
		{
			"prepared and committed",
			[]string{
				`begin`, `select send('a')`, `savepoint s`, `select send('b')`, `rollback to s`, `prepare transaction 'one'`,
				`select send('c')`, `commit prepared 'one'`, `select send('d')`,
			},
			[]string{"c", "a", "d"},
		},
		{
			"prepared and rolled back",
			[]string{`begin`, `select send('a')`, `prepare transaction 'two'`, `select send('b')`, `rollback prepared 'two'`},
			[]string{"b"},
		},
		{
			"autonomous, the transaction rolled back",
			[]string{`begin`, `select send('a')`, `select send_now('b')`, `rollback`},
			[]string{"b"},
		},
		{
			"autonomous, the savepoint rolled back",
			[]string{`begin`, `select send('a')`, `savepoint s`, `select send('b'), send_now('c')`, `rollback to s`, `commit`},
			[]string{"c", "a"},
		},
		{
			"autonomous, prepared and rolled back",
			[]string{`begin`, `select send('a'), send_now('b')`, `prepare transaction 'three'`, `rollback prepared 'three'`},
			[]string{"b"},
		},
		{
			"autonomous in a transaction that only reads",
			[]string{`begin read only`, `select send_now('a')`, `commit`},
			[]string{"a"},
		},
	} {
		w.script(c.script...)
		if got := bodies(w.received(1, "q")); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q came, want %q", c.name, got, c.want)
		}
	}
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

func TestP36NothingIsSentBeforeItsCommitAndAutonomousMessagesAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	conn := w.connect()
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'begun first')`)
	run(t, conn, `select amqp.autonomous_publish(1, '', 'q', 'autonomous')`)
	w.exec(`select amqp.publish(1, '', 'q', 'committed first')`)
	if got, want := bodies(w.received(1, "q")), []string{"autonomous", "committed first"}; !slices.Equal(got, want) {
		t.Errorf("before the commit %q came, want %q", got, want)
	}
	run(t, conn, `commit`)
	if got, want := bodies(w.received(1, "q")), []string{"begun first"}; !slices.Equal(got, want) {
		t.Errorf("after the commit %q came, want %q", got, want)
	}
}

func TestNothingIsSentOfASessionThatWasCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	conn := w.connect()
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'lost with its session')`)
	if !value[bool](w, `select pg_terminate_backend($1, 10000)`, conn.PgConn().PID()) {
		t.Fatal("the session did not end")
	}
	w.exec(`select amqp.publish(1, '', 'q', 'after it')`)
	if got, want := bodies(w.received(1, "q")), []string{"after it"}; !slices.Equal(got, want) {
		t.Errorf("%q came, want %q", got, want)
	}
}

func TestWaitDeliveredTellsThatABrokerHasNotConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	const wait = `select amqp.wait_delivered("timeout" => '100ms')`
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	if value[bool](w, wait) {
		t.Error("delivered, and no daemon runs")
	}
	d := w.start()
	w.waitDelivered()
	if !value[bool](w, `select amqp.delivered(confirmed_flush_lsn) from pg_replication_slots where slot_name = $1`, w.slot) {
		t.Error("what is confirmed is not delivered")
	}
	d.stop()
	began := time.Now()
	w.exec(`select amqp.publish(1, '', 'q', 'b')`)
	if value[bool](w, wait) || value[bool](w, `select amqp.delivered(pg_current_wal_insert_lsn())`) {
		t.Error("delivered, and the daemon is stopped")
	}
	if took := time.Since(began); took > 20*time.Second { // 30 s is what it waits when nobody says how long
		t.Errorf("a wait of 100 ms took %s", took)
	}
}
