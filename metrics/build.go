package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// NewBuildInfo declares the constant 1 that carries what runs in its labels.
func NewBuildInfo(reg prometheus.Registerer, version, commit string) {
	shared(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help:        "1, with the build of the running daemon as labels.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "go_version": runtime.Version()},
	}, func() float64 { return 1 }))
}
