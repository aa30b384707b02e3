package metrics

import "github.com/prometheus/client_golang/prometheus"

// The bounded queues of the path, values of the label stage.
const (
	stageInbox  = "inbox"  // received from PostgreSQL, not yet given to a broker's lane
	stageWindow = "window" // given to a broker, not yet confirmed
)

// Buffer is one bounded queue of the path.
type Buffer struct {
	Bytes        prometheus.Gauge // held now
	LimitBytes   prometheus.Gauge // set once, from the configuration
	Backpressure *Stopwatch       // runs while the queue is full and something waits to enter it
}

// buffers declares the metrics that all queues share.
type buffers struct {
	bytes, limit *prometheus.GaugeVec
	backpressure *stopwatches
}

func newBuffers(reg prometheus.Registerer) buffers {
	labels := []string{"stage", "slot", "broker"}
	return buffers{
		bytes: shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "buffer_bytes",
			Help: "Memory held by messages in a bounded queue, in bytes.",
		}, labels)),
		limit: shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "buffer_limit_bytes",
			Help: "Bound of a queue, in bytes.",
		}, labels)),
		backpressure: shared(reg, newStopwatches("backpressure_seconds_total",
			"Time during which a queue was full and the stage before it had to wait, in seconds.", labels...)),
	}
}

func (b buffers) with(stage, slot, broker string) Buffer {
	return Buffer{
		Bytes:        b.bytes.WithLabelValues(stage, slot, broker),
		LimitBytes:   b.limit.WithLabelValues(stage, slot, broker),
		Backpressure: b.backpressure.with(stage, slot, broker),
	}
}

func (b buffers) remove(stage, slot, broker string) {
	b.bytes.DeleteLabelValues(stage, slot, broker)
	b.limit.DeleteLabelValues(stage, slot, broker)
	b.backpressure.remove(stage, slot, broker)
}
