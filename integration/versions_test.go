package integration

import (
	"fmt"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// The other tests run on one version; this is the least that each version must do.
func TestEveryVersionOfPostgresDelivers(t *testing.T) {
	t.Parallel()
	for _, version := range testserver.Versions {
		if version == shared.postgres.Version() {
			continue // all the other tests
		}
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) {
			t.Parallel()
			deliver(t, testserver.PostgresOptions{Version: version, Settings: map[string]string{"max_prepared_transactions": "5"}})
		})
	}
}

func deliver(t *testing.T, o testserver.PostgresOptions) {
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, o)})
	w.queue(1, "q")
	h := w.history()
	d := w.start()
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	w.exec(`create table t ()`) // a transaction without messages, which version 14 sends nevertheless
	w.script(
		`begin`, `select amqp.publish(1, '', 'q', 'committed')`, `savepoint s`,
		`select amqp.publish(1, '', 'q', 'rolled back to a savepoint')`, `rollback to s`, `commit`,
		`begin`, `select amqp.publish(1, '', 'q', 'rolled back')`, `select amqp.autonomous_publish(1, '', 'q', 'autonomous')`, `rollback`,
		`begin`, `select amqp.publish(1, '', 'q', 'prepared')`, `prepare transaction 'p'`, `commit prepared 'p'`,
	)
	w.exec(`select amqp.publish(1, '', 'q', $1::bytea)`, binary)
	w.exec(`select amqp.autonomous_publish(1, '', 'no queue', 'dead letter')`)
	want := []string{"committed", "autonomous", "prepared", string(binary)}
	compare(want, w.received(1, "q")).wantExact(t)

	all := w.letters()
	if len(all) != 1 || all[0].Reason != "unroutable" {
		t.Fatalf("the dead letters are %+v", all)
	}
	w.queue(1, "no queue")
	w.exec(`select amqp.redeliver_all()`)
	if got := w.received(1, "no queue"); len(got) != 1 || got[0].MessageId != all[0].Origin || string(got[0].Body) != "dead letter" {
		t.Errorf("the redelivery came as %+v", got)
	}

	l := w.startLoad(loadOptions{transactions: 50})
	l.wait()
	w.waitDelivered()
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	w.exec(`select amqp.publish(1, '', $1, 'while the daemon is stopped')`, loadQueue)
	w.start()
	got := w.received(1, loadQueue)
	if repeated := w.received(1, "q"); len(repeated) > 0 {
		t.Errorf("the restart has repeated %q", bodies(repeated))
	}
	var committed []string
	others := map[string]bool{"dead letter": true}
	for _, body := range want {
		others[body] = true
	}
	for _, body := range h.bodies(1) {
		if !others[body] {
			committed = append(committed, body)
		}
	}
	compare(committed, got).wantExact(t)
}
