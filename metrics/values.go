package metrics

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// OneHot is a state as one series for each possible value, 1 for the current one and 0 for the others.
//
// Invariant: a scrape sees exactly one 1, or no series at all as long as the state is not known.
type OneHot[S ~string] struct {
	desc    *prometheus.Desc
	states  []S
	current atomic.Pointer[S]
}

func newOneHot[S ~string](name, help, label string, constant prometheus.Labels, states ...S) *OneHot[S] {
	return &OneHot[S]{
		desc:   prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, []string{label}, constant),
		states: states,
	}
}

// Set makes s the current state. A state outside the fixed list shows as all zero.
func (o *OneHot[S]) Set(s S) { o.current.Store(&s) }

// Clear says that the state is not known: the series disappear until the next Set.
func (o *OneHot[S]) Clear() { o.current.Store(nil) }

// Describe implements [prometheus.Collector].
func (o *OneHot[S]) Describe(ch chan<- *prometheus.Desc) { ch <- o.desc }

// Collect implements [prometheus.Collector].
func (o *OneHot[S]) Collect(ch chan<- prometheus.Metric) {
	current := o.current.Load()
	if current == nil {
		return
	}
	for _, s := range o.states {
		value := 0.0
		if s == *current {
			value = 1
		}
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.GaugeValue, value, string(s))
	}
}

// Reading is a gauge that may be unknown, and is then absent from a scrape: a gap in a graph is honest where 0 would
// read as "all is well".
type Reading struct {
	desc *prometheus.Desc
	read atomic.Pointer[func() float64]
}

func newReading(name, help string, constant prometheus.Labels) *Reading {
	return &Reading{desc: prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, nil, constant)}
}

// Set gives the reading a fixed value.
func (r *Reading) Set(value float64) { r.SetFunc(func() float64 { return value }) }

// SetFunc makes every scrape call f, from the scrape's goroutine: f must be quick and safe for concurrent use.
func (r *Reading) SetFunc(f func() float64) { r.read.Store(&f) }

// Clear makes the reading unknown.
func (r *Reading) Clear() { r.read.Store(nil) }

// Describe implements [prometheus.Collector].
func (r *Reading) Describe(ch chan<- *prometheus.Desc) { ch <- r.desc }

// Collect implements [prometheus.Collector].
func (r *Reading) Collect(ch chan<- prometheus.Metric) {
	if read := r.read.Load(); read != nil {
		ch <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, (*read)())
	}
}

// Stopwatch is a counter of seconds during which something was the case. A scrape includes the time that is running,
// so an hour of blockage shows while it lasts and not only when it ends.
type Stopwatch struct {
	mu      sync.Mutex // covers all below
	running int        // how many Starts have no Stop yet
	since   time.Time  // of the first of them; carries the monotonic clock
	total   time.Duration
}

// Start begins counting. Starts nest: overlapping spans count once.
func (w *Stopwatch) Start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == 0 {
		w.since = time.Now()
	}
	w.running++
}

// Stop ends what one Start began; without one it does nothing.
func (w *Stopwatch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == 0 {
		return
	}
	w.running--
	if w.running == 0 {
		w.total += time.Since(w.since)
	}
}

// Seconds returns what a scrape would see now.
func (w *Stopwatch) Seconds() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := w.total
	if w.running > 0 {
		total += time.Since(w.since)
	}
	return total.Seconds()
}

// stopwatches is one counter name with a Stopwatch for each combination of label values.
type stopwatches struct {
	desc   *prometheus.Desc
	mu     sync.Mutex // covers series
	series map[string]*labelledStopwatch
}

type labelledStopwatch struct {
	Stopwatch
	labels []string
}

func newStopwatches(name, help string, labels ...string) *stopwatches {
	return &stopwatches{
		desc:   prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil),
		series: make(map[string]*labelledStopwatch),
	}
}

// with returns the stopwatch of these label values, in the order of the declaration.
func (v *stopwatches) with(labels ...string) *Stopwatch {
	key := labelKey(labels)
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.series[key]
	if !ok {
		w = &labelledStopwatch{labels: labels}
		v.series[key] = w
	}
	return &w.Stopwatch
}

func (v *stopwatches) remove(labels ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.series, labelKey(labels))
}

// labelKey joins with a byte that valid UTF-8, and so a label value, cannot contain.
func labelKey(labels []string) string { return strings.Join(labels, "\xff") }

// Describe implements [prometheus.Collector].
func (v *stopwatches) Describe(ch chan<- *prometheus.Desc) { ch <- v.desc }

// Collect implements [prometheus.Collector].
func (v *stopwatches) Collect(ch chan<- prometheus.Metric) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range v.series {
		ch <- prometheus.MustNewConstMetric(v.desc, prometheus.CounterValue, w.Seconds(), w.labels...)
	}
}
