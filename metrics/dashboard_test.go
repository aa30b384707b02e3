package metrics_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestEveryMetricIsOnTheDashboard: what is measured is shown, or there is a reason why not.
func TestEveryMetricIsOnTheDashboard(t *testing.T) {
	hidden := map[string]string{
		"pgamqp_received_keepalives_total": "for tests of the protocol; bytes and messages show that the server sends",
	}
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(readText(t, "dashboard", "pgamqp.json")), &d); err != nil {
		t.Fatal(err)
	}
	known, shown := knownMetrics(t), map[string]bool{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, name := range ownMetric.FindAllString(target.Expr, -1) {
				if !known[name] {
					t.Errorf("no metric is called %s", name)
				}
				shown[strings.TrimSuffix(name, "_bucket")] = true
			}
		}
	}
	for name := range known {
		isSeries := strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count")
		if !isSeries && shown[name] == (hidden[name] != "") {
			t.Errorf("%s: shown is %v, the reason not to: %q", name, shown[name], hidden[name])
		}
	}
}
