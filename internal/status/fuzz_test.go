package status

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzMetrics reads what some server says at the address of a daemon: it is refused, or makes a state that JSON can
// say, and rates that are numbers.
func FuzzMetrics(f *testing.F) {
	f.Add(metricsText, metricsText)
	for _, s := range []string{
		"", "<html>", "# TYPE pgamqp_build_info gauge\npgamqp_build_info{version=\"\"} 1\n",
		strings.ReplaceAll(metricsText, " 1\n", " NaN\n"), strings.ReplaceAll(metricsText, " 30\n", " +Inf\n"),
		strings.ReplaceAll(metricsText, `le="0.002"`, `le="NaN"`), strings.ReplaceAll(metricsText, `broker="2"`, `broker="-1"`),
		"# TYPE pgamqp_last_heartbeat_timestamp_seconds gauge\npgamqp_last_heartbeat_timestamp_seconds 1e300\n" + metricsText,
		"# TYPE pgamqp_confirmed_messages_total histogram\npgamqp_confirmed_messages_total_sum{broker=\"2\"} 1\n",
	} {
		f.Add(metricsText, s)
	}
	f.Fuzz(func(t *testing.T, before, now string) {
		began := time.Unix(1700000000, 0)
		old, err := parse(strings.NewReader(before), began)
		if err != nil {
			return
		}
		d, err := parse(strings.NewReader(now), began.Add(time.Second))
		if err != nil {
			return
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatalf("%v: %+v", err, d)
		}
		for i := range d.Brokers {
			_ = d.Brokers[i].State()
		}
		if _, err := json.Marshal(Rates(old, d)); err != nil {
			t.Fatalf("%v: %+v", err, Rates(old, d))
		}
	})
}
