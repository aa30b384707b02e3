package page

import (
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgamqp/pgamqp/internal/status"
)

// view is what the template draws.
type view struct {
	status.Daemon
	State   string // in a word
	Problem string // what is wrong, or empty
	Lanes   []laneView
	Letters []letterView  // since the start, by reason
	Stored  []line        // the last dead letters
	Trouble []line        // the last warnings and errors but for those
	Span    time.Duration // of the charts
	Charts  []chart
}

type laneView struct {
	status.Broker
	status.Rate
	Good    bool
	Trouble line // the last one about it, if it is not good
}

type letterView struct {
	Reason string
	Count  float64
}

// view returns what there is to see; the caller holds mu.
func (p *Page) view() view {
	v := view{Daemon: p.last}
	known := make(map[string]bool, len(p.last.Brokers))
	for _, b := range p.last.Brokers {
		known[fmt.Sprint(b.ID)] = true
	}
	var last map[string]line
	v.Trouble, v.Stored, last = p.journal.seen(known)
	for _, b := range p.last.Brokers {
		state := b.State()
		lane := laneView{Broker: b, Rate: p.rates[b.ID], Good: state == "connected" || state == "idle"}
		if !lane.Good {
			lane.Trouble = last[fmt.Sprint(b.ID)]
		}
		v.Lanes = append(v.Lanes, lane)
	}
	for _, reason := range slices.Sorted(maps.Keys(p.last.Letters)) {
		v.Letters = append(v.Letters, letterView{reason, p.last.Letters[reason]})
	}
	v.Span = p.span()
	v.Charts = []chart{
		p.chart("Received", rateOf, func(s *sample) float64 { return s.received }),
		p.chart("Confirmed", rateOf, func(s *sample) float64 { return s.confirms }),
		p.chart("Publish to confirm, p99", secondsOf, func(s *sample) float64 { return s.p99 }),
		p.chart("Oldest unconfirmed commit", secondsOf, func(s *sample) float64 { return s.lag }),
	}
	return v
}

// chart is a line over the last minutes, in a field of 600 by 100.
type chart struct {
	Title           string
	Line            template.HTMLAttr // the points
	Latest, Highest string
}

const chartWidth, chartHeight = 600, 100

// span is how far back the charts go: as far as is known, but for the first minute, in whole minutes.
func (p *Page) span() time.Duration {
	known := p.last.At.Sub(p.samples[0].at) + time.Minute - 1
	return min(keep, max(time.Minute, known.Truncate(time.Minute)))
}

// chart draws one figure of the samples.
func (p *Page) chart(title string, show func(float64) string, figure func(*sample) float64) chart {
	end, span, highest := p.last.At, p.span(), 0.0
	for i := range p.samples {
		highest = max(highest, figure(&p.samples[i]))
	}
	var b strings.Builder
	for i := range p.samples {
		s := &p.samples[i]
		x := chartWidth * (1 - float64(end.Sub(s.at))/float64(span))
		y := chartHeight - 2.0
		if highest > 0 {
			y -= (chartHeight - 6) * figure(s) / highest
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
	}
	points := fmt.Sprintf(`points="%s"`, strings.TrimSpace(b.String()))
	return chart{title, template.HTMLAttr(points), show(figure(&p.samples[len(p.samples)-1])), show(highest)} //nolint:gosec // made of numbers
}

func rateOf(n float64) string { return fmt.Sprintf("%.0f/s", n) }

// secondsOf is a time for people; nothing is a dash.
func secondsOf(s float64) string {
	switch {
	case s <= 0:
		return "–"
	case s < 1:
		return fmt.Sprintf("%.3g ms", s*1000)
	}
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func sinceOf(at, now time.Time) string {
	if at.IsZero() {
		return "none yet"
	}
	return secondsOf(max(0.001, now.Sub(at).Seconds())) + " ago"
}
