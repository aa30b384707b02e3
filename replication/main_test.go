package replication

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/pgamqp/pgamqp/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait of these tests; only a failing test reaches it.
const limit = 15 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func freshMetrics() *metrics.Replication {
	return metrics.NewReplication(prometheus.NewRegistry(), "pgamqp")
}

// receive waits for a value.
func receive[T any](tb testing.TB, what string, c <-chan T) T {
	tb.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			tb.Fatalf("%s: channel closed", what)
		}
		return v
	case <-time.After(limit):
		tb.Fatalf("%s: nothing within %s", what, limit)
		panic("unreachable")
	}
}
