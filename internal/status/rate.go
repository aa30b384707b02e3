package status

import (
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Rate is what a broker did between two moments, for each second.
type Rate struct {
	Confirmed float64 `json:"confirmed_per_second"`
	// ConfirmP50 and ConfirmP99 are quantiles of the time from publish to confirm, in seconds, of what was confirmed
	// between the moments; 0 if nothing was.
	ConfirmP50 float64 `json:"confirm_p50_seconds"`
	ConfirmP99 float64 `json:"confirm_p99_seconds"`
}

// Rates compares two moments of one daemon, by broker. A daemon that was started anew in between has counted from 0:
// then what it counts now is all that is known.
func Rates(before, now Daemon) map[int32]Rate {
	rates := make(map[int32]Rate)
	elapsed := max(now.At.Sub(before.At), time.Millisecond).Seconds()
	earlier := make(map[int32]*Broker)
	for i := range before.Brokers {
		earlier[before.Brokers[i].ID] = &before.Brokers[i]
	}
	for i := range now.Brokers {
		b := &now.Brokers[i]
		old := earlier[b.ID]
		if old == nil || old.Confirmed > b.Confirmed {
			old = &Broker{}
		}
		confirms := b.confirms.since(old.confirms)
		rates[b.ID] = Rate{(b.Confirmed - old.Confirmed) / elapsed, confirms.quantile(0.5), confirms.quantile(0.99)}
	}
	return rates
}

// histogram is how many observations were at most as large as each bound; the bounds rise.
type histogram struct {
	bounds []float64
	counts []float64 // as many
	total  float64
}

func histogramOf(h *dto.Histogram) histogram {
	var out histogram
	for _, b := range h.GetBucket() {
		if isCount(b.GetUpperBound()) { // the last one is infinite
			out.bounds = append(out.bounds, b.GetUpperBound())
			out.counts = append(out.counts, float64(b.GetCumulativeCount()))
		}
	}
	out.total = float64(h.GetSampleCount())
	return out
}

// since is what came on top of an earlier one.
func (h histogram) since(old histogram) histogram {
	if len(old.counts) != len(h.counts) {
		return h
	}
	out := histogram{bounds: h.bounds, counts: make([]float64, len(h.counts)), total: h.total - old.total}
	for i := range h.counts {
		out.counts[i] = h.counts[i] - old.counts[i]
	}
	return out
}

// quantile estimates one, as Prometheus does: as if the observations of a bucket were spread evenly. Beyond the last
// bound it is that bound.
func (h histogram) quantile(q float64) float64 {
	if h.total <= 0 || len(h.bounds) == 0 {
		return 0
	}
	rank, low, below := q*h.total, 0.0, 0.0
	for i, bound := range h.bounds {
		if h.counts[i] >= rank && h.counts[i] > below {
			return low + (bound-low)*(rank-below)/(h.counts[i]-below)
		}
		low, below = bound, h.counts[i]
	}
	return h.bounds[len(h.bounds)-1]
}
