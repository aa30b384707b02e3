package integration

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// panel is what the tests look at in a panel of Grafana.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ Expr string }
}

func dashboard(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile("../metrics/dashboard/pgamqp.json")
	if err != nil {
		t.Fatal(err)
	}
	d := decode[struct{ Panels []panel }](t, string(text))
	if len(d.Panels) < 20 || !json.Valid(text) {
		t.Fatalf("%d panels", len(d.Panels))
	}
	return d.Panels
}

// TestDashboardOfPrometheusShowsSomethingOnEveryPanel asks a real Prometheus what Grafana would, while everything
// that is to be seen happens; then a broker has an alarm.
func TestDashboardOfPrometheusShowsSomethingOnEveryPanel(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{brokers: 2, rabbit: rabbit, postgres: ownPostgres(t, testserver.PostgresOptions{
		Settings: map[string]string{"max_slot_wal_keep_size": "1GB"}, // or there is no distance to the loss of the slot
	})})
	w.queue(1, "q")
	w.queue(2, "q")
	d := w.start("--heartbeat-interval", "1s", "--detach-after", "0s")
	prometheus := d.prometheus()
	w.exec(`select amqp.publish(1, '', 'no queue', 'unroutable')`)
	ctx := withDeadline(t, 3*time.Minute)
	variables := strings.NewReplacer("$slot", ".*", "$broker", ".*", "$__rate_interval", "30s")
	var troubled string
	for _, p := range dashboard(t) {
		for _, target := range p.Targets {
			query := variables.Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("panel %q: a variable is not known: %s", p.Title, target.Expr)
				continue
			}
			if p.Title == "Brokers detached or blocked" {
				troubled = query
			}
			if _, err := prometheus.QueryUntil(ctx, query, func(s []testserver.Sample) bool {
				w.exec(`select amqp.publish(b, '', 'q', g::text) from generate_series(1, 3) g, generate_series(1, 2) b`) // something goes on meanwhile
				return len(s) > 0 && !slices.ContainsFunc(s, func(s testserver.Sample) bool { return math.IsNaN(s.Value) })
			}); err != nil {
				t.Fatalf("panel %q shows nothing: %v", p.Title, err)
			}
		}
	}
	wantTroubled := func(when string, n float64) {
		t.Helper()
		if _, err := prometheus.QueryUntil(ctx, troubled, func(s []testserver.Sample) bool { return len(s) == 1 && s[0].Value == n }); err != nil {
			t.Errorf("%s there are not %v brokers detached or blocked: %v", when, n, err)
		}
	}
	wantTroubled("before the alarm", 0)
	setAlarm(t, rabbit, true)
	w.exec(`select amqp.publish(2, '', 'q', 'waits')`) // RabbitMQ tells those of the alarm that send something
	wantTroubled("with one of two blocked", 1)
	setAlarm(t, rabbit, false)
	wantTroubled("after the alarm", 0)
}

func TestDashboardOfPrometheusIsDrawnWithoutOverlap(t *testing.T) {
	t.Parallel()
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range dashboard(t) {
		if ids[p.ID] || p.Title == "" || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d %q of type %s with %d targets", p.ID, p.Title, p.Type, len(p.Targets))
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %s at %s", p.Title, other, fmt.Sprint(x, y))
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
