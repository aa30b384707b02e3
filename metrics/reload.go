package metrics

import "github.com/prometheus/client_golang/prometheus"

// Reload is what became of the last reading of the settings, the start included.
type Reload struct{ successful, at prometheus.Gauge }

// NewReload declares its metrics.
func NewReload(reg prometheus.Registerer) *Reload {
	gauge := func(name, help string) prometheus.Gauge {
		return shared(reg, prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}))
	}
	return &Reload{
		successful: gauge("config_last_reload_successful", "1 if the settings could be read the last time, else 0 and the earlier ones hold."),
		at:         gauge("config_last_reload_success_timestamp_seconds", "When the settings were read without a mistake."),
	}
}

// Done notes how it went just now.
func (r *Reload) Done(good bool) {
	if !good {
		r.successful.Set(0)
		return
	}
	r.successful.Set(1)
	r.at.SetToCurrentTime()
}
