package integration

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// prometheus starts one that scrapes the daemon, closed with the test.
func (d *daemon) prometheus() *testserver.Prometheus {
	d.t.Helper()
	prometheus, err := testserver.StartPrometheus(testserver.PrometheusOptions{Targets: []string{d.address()}})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := prometheus.Close(); err != nil {
			d.t.Error(err)
		}
	})
	return prometheus
}

func TestPrometheusSeesWhatTheDaemonDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "e", false, "q")
	d := w.start("--heartbeat-interval", "1s")
	prometheus := d.prometheus()
	w.script(
		`select amqp.publish(1, '', 'q', g::text) from generate_series(1, 7) g`,
		`select amqp.publish(1, 'e', 'q', g::text) from generate_series(1, 3) g`,
		`select amqp.autonomous_publish(1, 'e', 'q', 'autonomous')`,
		`select amqp.publish(1, '', 'no queue', 'unroutable')`,
		`select amqp.queue_declare(1, 'q')`,
		`select pg_logical_emit_message(true, 'foreign', 'not ours')`,
		`begin`, `select amqp.publish(1, '', 'q', 'rolled back')`, `rollback`,
	)
	w.waitDelivered()

	ctx := withDeadline(t, time.Minute)
	for _, query := range []string{ // each has a result exactly when it holds
		`up{job="pgamqp"} == 1`,
		`pgamqp_build_info == 1`,
		`pgamqp_leader == 1`,
		`pgamqp_replication_state{state="streaming"} == 1`,
		`sum(pgamqp_replication_state) == 1`,
		`pgamqp_postgres_connects_total{result="ok"} == 1`,
		`pgamqp_received_messages_total{kind="publish"} == 11`,
		`pgamqp_received_messages_total{kind="autonomous"} == 1`,
		`pgamqp_received_messages_total{kind="declare"} == 1`,
		`pgamqp_received_messages_total{kind="foreign"} == 1`,
		`pgamqp_skipped_messages_total{reason="foreign_prefix"} == 1`,
		`pgamqp_received_messages_total{kind="heartbeat"} >= 2`,
		`pgamqp_received_bytes_total > 500`,
		`pgamqp_dropped_duplicates_total == 0`,
		`pgamqp_broker_connected{broker="1"} == 1`,
		`pgamqp_broker_blocked{broker="1"} == 0`,
		`pgamqp_broker_connects_total{broker="1", result="ok"} == 1`,
		`pgamqp_published_messages_total{broker="1", exchange="(AMQP default)"} == 8`,
		`pgamqp_confirmed_messages_total{broker="1", exchange="(AMQP default)"} == 7`,
		`pgamqp_confirmed_messages_total{broker="1", exchange="e"} == 4`,
		`pgamqp_returned_messages_total{broker="1", reply_code="312"} == 1`,
		`pgamqp_dead_lettered_messages_total{broker="1", reason="unroutable"} == 1`,
		`sum(pgamqp_dead_lettered_messages_total) == 1`,
		`sum(pgamqp_publish_retries_total) == 0`,
		`pgamqp_unconfirmed_messages{broker="1"} == 0`,
		`pgamqp_buffer_bytes{stage="window", broker="1"} == 0`,
		`pgamqp_buffer_limit_bytes{stage="window", broker="1"} == 32 * 1024 * 1024`,
		`pgamqp_publish_confirm_seconds_count{broker="1"} == 11`,
		`histogram_quantile(0.99, pgamqp_publish_confirm_seconds_bucket) < 5`,
		`pgamqp_commit_to_confirm_seconds_count{broker="1"} == 10`, // an autonomous message has no commit
		`pgamqp_lag_seconds < 5`,
		`time() - pgamqp_last_confirmed_timestamp_seconds{broker="1"} < 60`,
		`time() - pgamqp_last_heartbeat_timestamp_seconds < 60`,
		`pgamqp_heartbeat_round_trip_seconds_count >= 1`,
		`pgamqp_dead_letter_messages == 1`,
		`pgamqp_slot_retained_wal_bytes > 0`,
		`pgamqp_slot_lag_bytes < 1e8`, // other tests write WAL
		`pgamqp_slot_wal_status{status="reserved"} == 1`,
		`process_resident_memory_bytes > 1e6`,
	} {
		if _, err := prometheus.QueryUntil(ctx, query, func(s []testserver.Sample) bool { return len(s) > 0 }); err != nil {
			t.Errorf("%v", err)
			break
		}
	}
	if t.Failed() {
		_, text := d.get("/metrics")
		t.Log(text)
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	d := w.start("--heartbeat-interval", "1s")
	w.exec(`select amqp.publish(b, e, 'no queue', 'a') from generate_series(1, 2) b, (values (''), ('missing "e" \ ' || chr(10)), ('Größe')) v(e)`)
	w.waitDelivered()
	_, text := d.get("/metrics")
	check := exec.CommandContext(withDeadline(t, time.Minute), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s\nof\n%s", err, out, text)
	}
}
