package integration

import (
	"fmt"
	"testing"
)

// The error of the daemon says: fix: run "pgamqp install". Up to version 17 that makes the slot stuck for good:
// install updates amqp.installation while there is no publication yet.
func TestInstallMendsAMissingPublication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exec(`drop publication pgamqp`)
	w.refuseRun(exitPublication, nil, `fix: run "pgamqp install"`)
	w.install()
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
}

// A slot that is stuck for want of the publication needs an operator; the code says: try again.
func TestP21SlotThatIsStuckForWantOfThePublicationNeedsAnOperator(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.exec(`drop publication pgamqp`)
	w.exec(`create table t as select 1`)
	w.exec(`create publication pgamqp`)
	if w.postgres.Version() < 18 {
		w.refuseRun(exitPublication, nil, `publication "pgamqp" does not exist`, `creating it now does not help`)
	}
}

// A broker that was once asked for in vain stays unknown until the table is read again, which is after
// the next message.
func TestBrokerThatWasUnknownIsUsedOnceItIsInserted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	for i := range 5 {
		w.exec(fmt.Sprintf(`do $$ begin
			insert into amqp.broker (broker_id, host) values (%[1]d, 'nowhere');
			perform amqp.publish(%[1]d, '', 'q', 'a');
			delete from amqp.broker where broker_id = %[1]d; end $$`, 20+i))
		w.waitDelivered()
		w.script(
			`begin`,
			fmt.Sprintf(`insert into amqp.broker select %d, host, port, vhost from amqp.broker where broker_id = 1`, 20+i),
			`select amqp.redeliver_all()`,
			`commit`,
		)
		if got := bodies(w.received(1, "q")); len(got) != 1 {
			t.Errorf("%q came after the redelivery; %d dead letters", got, w.deadLetters())
		}
		w.exec(`delete from amqp.dead_letter`)
	}
}

// README: "Changes take effect at once"; sql/emit.sql: "before the first message that was published after it".
func TestChangeOfABrokerHoldsForWhatIsPublishedAfterIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	w.start()
	conn := w.connect()
	for _, transaction := range []bool{false, true} {
		stale := 0
		for i := range 20 {
			if transaction {
				run(t, conn, `begin`)
			}
			run(t, conn, fmt.Sprintf(`update amqp.broker set vhost = '%s' where broker_id = 1`, w.vhosts[(i+1)%2]))
			run(t, conn, `select amqp.publish(1, '', 'q', 'x')`)
			if transaction {
				run(t, conn, `commit`)
			}
			stale += len(w.received(1+i%2, "q"))
			w.take(1+(i+1)%2, "q")
		}
		if stale > 0 {
			t.Errorf("in one transaction: %v; %d of 20 messages went to the old virtual host", transaction, stale)
		}
	}
}

// The problem has no fix in its text.
func TestInstallTellsARoleWithoutPrivilegesWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	role := w.database + "_role"
	w.exec(`create role ` + role + ` login`)
	t.Cleanup(func() { w.exec(`drop role ` + role) })
	w.refuseInstall(exitPrecondition, []string{"--database-url", w.urlAs(role)}, `fix: alter role "`+role+`" replication;`)
}
