package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// A daemon that may not go on delivers what it has first. Its broker answers late here: a publisher
// that had ended with the first error would wait for these answers in vain.
func TestP51DaemonThatEndsByItselfDeliversWhatItHas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	const patience = time.Minute
	d := w.start("--shutdown-timeout", fmt.Sprint(patience))
	w.exec(`select amqp.publish(1, '', 'q', 'first')`)
	w.waitDelivered()
	p.freeze()
	const n = 20
	w.exec(`select amqp.publish(1, '', 'q', format('message %s', n)) from generate_series(1, $1::int) n`, n)
	w.exec(`alter system set synchronous_standby_names = '*'`)
	w.exec(`select pg_reload_conf()`)
	d.waitLog("stopping because of an error")
	p.thaw()
	began := time.Now()
	d.ends(exitPrecondition, `synchronous standby`)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the end took %s", took)
	}
	if got := len(w.received(1, "q")); got != n+1 {
		t.Errorf("%d messages arrived, want %d", got, n+1)
	}
}
