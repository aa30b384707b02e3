package status

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve answers /metrics with a text and returns the address.
func serve(t *testing.T, code int, text string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

const metricsText = `# TYPE pgamqp_build_info gauge
pgamqp_build_info{commit="abc",version="v1.2.3"} 1
# TYPE pgamqp_replication_state gauge
pgamqp_replication_state{slot="s",state="connecting"} 0
pgamqp_replication_state{slot="s",state="streaming"} 1
pgamqp_replication_state{slot="s_broker_2",state="connecting"} 1
# TYPE pgamqp_slot_lag_bytes gauge
pgamqp_slot_lag_bytes{slot="s_broker_2"} 7
pgamqp_slot_lag_bytes{slot="s"} 0
# TYPE pgamqp_lag_seconds gauge
pgamqp_lag_seconds{slot="s"} 1.5
# TYPE pgamqp_received_messages_total counter
pgamqp_received_messages_total{kind="publish",slot="s"} 40
pgamqp_received_messages_total{kind="row",slot="s"} 2
# TYPE pgamqp_broker_connected gauge
pgamqp_broker_connected{broker="2",host="a:5672"} 0
pgamqp_broker_connected{broker="2",host="b:5672"} 1
pgamqp_broker_connected{broker="10",host="c:5672"} 0
# TYPE pgamqp_broker_blocked gauge
pgamqp_broker_blocked{broker="2"} 1
# TYPE pgamqp_broker_detached gauge
pgamqp_broker_detached{broker="10"} 1
# TYPE pgamqp_confirmed_messages_total counter
pgamqp_confirmed_messages_total{broker="2",exchange=""} 30
pgamqp_confirmed_messages_total{broker="2",exchange="x"} 12
# TYPE pgamqp_dead_lettered_messages_total counter
pgamqp_dead_lettered_messages_total{broker="unknown",reason="undecodable"} 3
# TYPE pgamqp_publish_confirm_seconds histogram
pgamqp_publish_confirm_seconds_bucket{broker="2",le="0.001"} 50
pgamqp_publish_confirm_seconds_bucket{broker="2",le="0.002"} 99
pgamqp_publish_confirm_seconds_bucket{broker="2",le="+Inf"} 100
pgamqp_publish_confirm_seconds_sum{broker="2"} 0.1
pgamqp_publish_confirm_seconds_count{broker="2"} 100
`

func TestReadPicksWhatADaemonSays(t *testing.T) {
	d, err := Read(t.Context(), serve(t, http.StatusOK, metricsText))
	if err != nil {
		t.Fatal(err)
	}
	if d.Version != "v1.2.3" || d.State != "streaming" || len(d.Slots) != 2 || d.Slots[0].Name != "s" || d.Slots[1].Lag != 7 || d.LagSeconds != 1.5 || d.Received != 42 || d.At.IsZero() {
		t.Errorf("daemon %+v", d)
	}
	if len(d.Brokers) != 2 || d.Brokers[0].ID != 2 || d.Brokers[1].ID != 10 {
		t.Fatalf("brokers %+v", d.Brokers)
	}
	if b := d.Brokers[0]; b.Confirmed != 42 || b.State() != "blocked" || len(b.Hosts) != 2 || b.Hosts[0].Connected || !b.Hosts[1].Connected {
		t.Errorf("broker 2: %+v, %s", b, b.State())
	}
	if s := d.Brokers[1].State(); s != "detached, disconnected" {
		t.Errorf("broker 10 is %s", s)
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{serve(t, http.StatusNotFound, ""), "it answers 404"},
		{serve(t, http.StatusOK, "# TYPE other gauge\nother 1\n"), "what listens there is not pgamqp"},
		{serve(t, http.StatusOK, "<html>"), "read its metrics"},
		{"nonsense", "missing port"},
		{"127.0.0.1:1", "refused"},
	} {
		_, err := Read(t.Context(), c.address)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "ask the daemon at "+c.address) {
			t.Errorf("%s: %v, want %q", c.address, err, c.want)
		}
	}
}

func TestStatesOfABroker(t *testing.T) {
	up, down := []Host{{"a:1", true}}, []Host{{"a:1", false}}
	for _, c := range []struct {
		b    Broker
		want string
	}{
		{Broker{}, "idle"},
		{Broker{Hosts: up}, "connected"},
		{Broker{Hosts: down}, "disconnected"},
		{Broker{Hosts: up, Holding: true}, "holding"},
		{Broker{Hosts: up, Detached: true}, "catching up"},
		{Broker{Hosts: up, Detached: true, Blocked: true}, "blocked"},
	} {
		if got := c.b.State(); got != c.want {
			t.Errorf("%+v is %q, want %q", c.b, got, c.want)
		}
	}
}

func TestRatesAreOfTheTimeBetween(t *testing.T) {
	began := time.Unix(100, 0)
	buckets := func(total float64, counts ...float64) histogram {
		return histogram{bounds: []float64{0.001, 0.002, 0.004}, counts: counts, total: total}
	}
	before := Daemon{At: began, Brokers: []Broker{{ID: 1, Confirmed: 100, confirms: buckets(100, 100, 100, 100)}, {ID: 2, Confirmed: 900}}}
	now := Daemon{At: began.Add(2 * time.Second), Brokers: []Broker{
		{ID: 1, Confirmed: 300, confirms: buckets(300, 100, 300, 300)}, // all 200 took between 1 and 2 ms
		{ID: 2, Confirmed: 10}, // it was started anew
		{ID: 3, Confirmed: 4},
	}}
	rates := Rates(before, now)
	if r := rates[1]; r.Confirmed != 100 || math.Abs(r.ConfirmP50-0.0015) > 1e-9 || math.Abs(r.ConfirmP99-0.00199) > 1e-9 {
		t.Errorf("broker 1: %+v", r)
	}
	if r := rates[2]; r.Confirmed != 5 || r.ConfirmP50 != 0 {
		t.Errorf("broker 2: %+v", r)
	}
	if r := rates[3]; r.Confirmed != 2 {
		t.Errorf("broker 3: %+v", r)
	}
	if q := buckets(10, 0, 0, 5).quantile(0.99); q != 0.004 {
		t.Errorf("beyond the last bound it is %g", q)
	}
}
