package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace is the first part of every name.
const namespace = "pgamqp"

// secondsBuckets spans what the path does: 100 µs for a local broker's confirm, 60 s for a broker that is in trouble.
// What takes longer shows in lag_seconds and last_confirmed_timestamp_seconds.
func secondsBuckets() []float64 {
	return []float64{
		0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
		0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
	}
}

// set registers the collectors of one component and remembers them, so that they can be removed together.
type set struct {
	reg  prometheus.Registerer
	mine []prometheus.Collector
}

// remove takes the component's own series out of the registry.
func (s *set) remove() {
	for _, c := range s.mine {
		s.reg.Unregister(c)
	}
	s.mine = nil
}

// own registers a collector that carries the component's own constant labels.
func own[C prometheus.Collector](s *set, c C) C {
	c = shared(s.reg, c)
	s.mine = append(s.mine, c)
	return c
}

// shared registers a collector, or returns the one that is registered already under the same name and labels. An
// error is a contradiction between two declarations of this package, so it panics.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	if err == nil {
		return c
	}
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, same := already.ExistingCollector.(C); same {
			return existing
		}
	}
	panic(fmt.Sprintf("metrics: register %T: %v", c, err))
}
