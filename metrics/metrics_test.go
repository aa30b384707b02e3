package metrics_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgamqp/pgamqp/metrics"
)

var update = flag.Bool("update", false, "rewrite testdata/names.golden")

// everything makes every metric of the package appear in a fresh registry.
func everything(t *testing.T) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	metrics.NewBuildInfo(reg, "v1.2.3", "abcdef")

	metrics.NewReload(reg).Done(true)
	metrics.NewSnapshot(reg)

	r := metrics.NewReplication(reg, "pgamqp")
	r.State.Set(metrics.StateStreaming)
	r.LagSeconds.SetFunc(func() float64 { return 0.5 })
	r.TransactionMessages.Observe(3)

	b := metrics.NewPublisher(reg).Broker(1)
	b.SetHosts("a:5672", "b:5672")
	b.Connected("a:5672")
	b.Exchange("orders").Published.Inc()
	b.ConfirmSeconds.Observe(0.001)

	s := metrics.NewSlot(reg, "pgamqp")
	s.LagBytes.Set(1)
	s.RetainedBytes.Set(2)
	s.SafeBytes.Set(3)
	s.WALStatus.Set(metrics.WALReserved)
	s.DeadLetterMessages.Set(4)
	return reg
}

func TestO05NamesAndLabelsAreTheOnesThatDashboardsKnow(t *testing.T) {
	families, err := everything(t).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range families {
		labels := map[string]map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][or(l.GetValue(), `""`)] = true
			}
		}
		delete(labels, "go_version")
		fmt.Fprintf(&got, "%s %s\n", f.GetName(), strings.ToLower(f.GetType().String()))
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			fmt.Fprintf(&got, "    %s: %s\n", name, strings.Join(slices.Sorted(maps.Keys(labels[name])), " | "))
		}
	}
	const golden = "testdata/names.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("metrics changed; dashboards and alerts may depend on the old ones (-want +got, -update rewrites):\n%s", diff)
	}
}

func TestPromtoolFindsNothingToComplainAbout(t *testing.T) {
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(everything(t), promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = rec.Body
	if out, err := check.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestComponentsMadeAgainGoOnCounting(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		metrics.NewBuildInfo(reg, "v1", "c")
		r := metrics.NewReplication(reg, "pgamqp")
		r.Received.Publish.Inc()
		r.LagSeconds.Set(7)
		r.Inbox.Bytes.Add(10)
		metrics.NewPublisher(reg).Broker(3).Exchange("x").Published.Inc()
		metrics.NewSlot(reg, "pgamqp").LagBytes.Set(1)
	}
	want := map[string]string{
		`pgamqp_received_messages_total{kind="publish",slot="pgamqp"}`:     "2",
		`pgamqp_lag_seconds{slot="pgamqp"}`:                                "7",
		`pgamqp_buffer_bytes{broker="",slot="pgamqp",stage="inbox"}`:       "20",
		`pgamqp_published_messages_total{broker="3",exchange="x"}`:         "2",
		`pgamqp_slot_lag_bytes{slot="pgamqp"}`:                             "1",
		`pgamqp_dead_lettered_messages_total{broker="3",reason="refused"}`: "0",
	}
	got := scrape(t, reg)
	for series, value := range want {
		if got[series] != value {
			t.Errorf("%s = %q, want %s", series, got[series], value)
		}
	}
}

func TestRemovedSlotLeavesTheOtherAlone(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	keep, gone := metrics.NewReplication(reg, "pgamqp"), metrics.NewReplication(reg, "pgamqp_broker_2")
	slotGone := metrics.NewSlot(reg, "pgamqp_broker_2")
	for _, r := range []*metrics.Replication{keep, gone} {
		r.State.Set(metrics.StateStreaming)
		r.LagSeconds.Set(1)
		r.Inbox.Backpressure.Start()
	}
	slotGone.WALStatus.Set(metrics.WALLost)
	slotGone.SafeBytes.Set(1)

	gone.Remove()
	slotGone.Remove()
	kept := 0
	for series := range scrape(t, reg) {
		if strings.Contains(series, "pgamqp_broker_2") {
			t.Errorf("%s is still there", series)
		}
		if strings.Contains(series, `slot="pgamqp"`) {
			kept++
		}
	}
	if kept == 0 {
		t.Error("the other slot lost its series")
	}
	metrics.NewReplication(reg, "pgamqp_broker_2").Received.Row.Inc() // and it can come back
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// scrape returns what Prometheus would read, by series.
func scrape(t *testing.T, reg *prometheus.Registry) map[string]string {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("scrape: %d %s", rec.Code, rec.Body)
	}
	series := make(map[string]string)
	for line := range strings.Lines(rec.Body.String()) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			at := strings.LastIndexByte(line, ' ')
			series[line[:at]] = line[at+1:]
		}
	}
	return series
}
