package integration

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// wantAnswer checks one answer of the HTTP server.
func (d *daemon) wantAnswer(path string, code int, pattern string) {
	d.t.Helper()
	await(d.t, startLimit, "the daemon listens", func() bool { return d.address() != "" })
	got, body := d.get(path)
	if got != code || !regexp.MustCompile(pattern).MatchString(body) {
		d.t.Errorf("%s answers %d %q, want %d and %q", path, got, body, code, pattern)
	}
}

func TestDaemonThatWorksIsAliveAndReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	d := w.start()
	d.wantAnswer("/healthz", http.StatusOK, `^alive\n$`)
	d.wantAnswer("/readyz", http.StatusOK, `^ready\n$`)
	d.wantAnswer("/", http.StatusOK, `(?s)<h1>pgamqp</h1>.*/metrics.*/healthz.*/readyz`)
	d.wantAnswer("/no/such/page", http.StatusNotFound, `.`)
	// A stopped broker that has nothing to do is nobody's worry.
	w.exec(`insert into amqp.broker (broker_id, host, port) values (20, '127.0.0.1', $1)`, closedPort(t))
	d.waitLog("no connection to broker")
	d.wantAnswer("/readyz", http.StatusOK, `^ready\n$`)
}

func TestDaemonIsNotReadyWhileABrokerWithMessagesIsStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1`, p.port())
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	w.waitDelivered()
	p.refuse()
	w.exec(`select amqp.publish(1, '', 'q', 'b')`)
	await(t, time.Minute, "the daemon is not ready", func() bool {
		code, _ := d.get("/readyz")
		return code == http.StatusServiceUnavailable
	})
	d.wantAnswer("/readyz", http.StatusServiceUnavailable, `^not ready: broker 1 takes no messages for \d+s, 1 wait: .*refused\n$`)
	d.wantAnswer("/healthz", http.StatusOK, `^alive\n$`) // a restart would not help
	if lag := d.metric("pgamqp_lag_seconds"); lag < 5 || lag > 60 {
		t.Errorf("the oldest message waits for %v s by the metric", lag)
	}
	p.accept()
	d.waitReady()
	compare([]string{"a", "b"}, w.received(1, "q")).wantExact(t)
}

func TestDaemonWaitsForADatabaseThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	p := startProxy(t, fmt.Sprintf("127.0.0.1:%d", w.postgres.Port()))
	p.refuse()
	url := strings.Replace(w.url(), fmt.Sprint(":", w.postgres.Port()), fmt.Sprint(":", p.port()), 1)
	d := w.launch("--database-url", url)
	d.waitLog("cannot check the database, trying again")
	d.wantAnswer("/healthz", http.StatusOK, `^alive\n$`)
	d.wantAnswer("/readyz", http.StatusServiceUnavailable, `^not ready: replication is connecting for \d+s`)
	p.accept()
	d.waitReady()
	compare([]string{"a"}, w.received(1, "q")).wantExact(t)
}
