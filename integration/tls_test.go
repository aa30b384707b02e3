package integration

import (
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestStreamWorksOverTLS covers what TLS could break: reads are interrupted by
// deadlines, in the middle of records too.
func TestStreamWorksOverTLS(t *testing.T) {
	certificate, err := testserver.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{TLS: certificate})})
	w.queue(1, "q")
	url := strings.Replace(w.url(), "sslmode=disable", "sslmode=require", 1)
	d := launch(t, "run", "--database-url", url, "--slot", w.slot, "--listen", "127.0.0.1:0")
	d.waitReady()
	if n := value[int](w, `select count(*)::int from pg_stat_ssl s join pg_stat_replication r using (pid) where s.ssl`); n != 1 {
		t.Fatalf("%d streams over TLS, want 1", n)
	}
	const rounds, each = 20, 200
	for i := range rounds {
		w.exec(`select count(amqp.publish(1, '', 'q', repeat(chr(97 + $1), 300 * i))) from generate_series(1, $2) i`, i, each)
	}
	w.waitDelivered()
	got := w.consume(1, "q").next(rounds * each)
	for n, m := range got {
		if want := 300 * (n%each + 1); len(m.Body) != want || m.Body[0] != byte('a'+n/each) {
			t.Fatalf("message %d has %d bytes and begins with %q, want %d and %q", n, len(m.Body), m.Body[0], want, byte('a'+n/each))
		}
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
