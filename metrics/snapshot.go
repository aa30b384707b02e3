package metrics

import "github.com/prometheus/client_golang/prometheus"

// Snapshot is what becomes of the snapshots of tables.
type Snapshot struct {
	// Rows counts rows that went to the lanes of their brokers, Repeated the chunks that were read in vain.
	Rows, Repeated prometheus.Counter
	// Retried counts attempts that failed and are made again, Failed the snapshots that have ended so.
	Retried, Failed prometheus.Counter
	// Running is 1 while a snapshot is taken.
	Running prometheus.Gauge
}

// NewSnapshot declares the metrics of snapshots.
func NewSnapshot(reg prometheus.Registerer) *Snapshot {
	counter := func(name, help string) prometheus.Counter {
		return shared(reg, prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}))
	}
	failures := shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "snapshot_failures_total", Help: "Attempts at a snapshot that failed: tried again, or the end of it.",
	}, []string{"result"}))
	return &Snapshot{
		Retried:  failures.WithLabelValues("retried"),
		Failed:   failures.WithLabelValues("failed"),
		Rows:     counter("snapshot_rows_total", "Rows of snapshots that were handed to their brokers' lanes."),
		Repeated: counter("snapshot_repeated_chunks_total", "Parts of tables that were read and have to be read again."),
		Running: shared(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: "snapshot_running", Help: "1 while a snapshot is taken, else 0.",
		})),
	}
}
