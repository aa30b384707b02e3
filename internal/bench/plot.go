package bench

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Point is a median at Y, with the range of its samples. Low and High that are equal are no
// range.
type Point struct{ X, Y, Low, High float64 }

// Series is a line of a chart.
type Series struct {
	Name   string
	Points []Point // by X
}

// Chart is lines over a common X axis, which may be logarithmic. The Y axis begins at 0, so
// that a line twice as high is twice as much.
type Chart struct {
	Title, XTitle, YTitle string
	LogX                  bool
	Series                []Series
}

// Sizes are in pixels, as the picture is shown about as wide as it is.
const (
	chartWidth   = 900
	chartHeight  = 380
	plotLeft     = 70
	plotTop      = 64
	plotBottom   = chartHeight - 56
	legendGap    = 24 // between the plot and the legend
	legendSample = 36 // a piece of line with a marker, before a name
	legendLine   = 24
	letterWidth  = 7.5 // of a usual letter, to guess how wide a text is
)

// chartStyle colors by class, so that text and grid suit the reader's light or dark page. The
// colors of the lines, near those of Okabe and Ito, differ for color-blind people too, and so do
// the markers.
const chartStyle = `
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.whisker { fill: none; stroke: currentColor; stroke-width: 1.5; opacity: 0.6; }
.marker { fill: currentColor; }
.page { fill: #ffffff; } .muted { fill: #59636e; } .grid { stroke: #d8dee4; } .axis { stroke: #818b98; }
.c0 { color: #0072b2; } .c1 { color: #d55e00; } .c2 { color: #009e73; }
.c3 { color: #b14e85; } .c4 { color: #e69500; } .c5 { color: #3d4650; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.page { fill: #0d1117; } .muted { fill: #9198a1; } .grid { stroke: #2a313a; } .axis { stroke: #6e7681; }
.c0 { color: #4fa8e8; } .c1 { color: #f0803c; } .c2 { color: #22c58a; }
.c3 { color: #d77fb6; } .c4 { color: #f0e442; } .c5 { color: #e6edf3; }
}
`

// markerPath draws the marker of a series around the current point: circle, square, triangle,
// diamond, triangle upside down, cross.
func markerPath(series int) string {
	paths := [...]string{
		"m-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0z",
		"m-4,-4h8v8h-8z",
		"m0,-5.5l5.2,9h-10.4z",
		"m0,-5.8l5.8,5.8l-5.8,5.8l-5.8,-5.8z",
		"m0,5.5l5.2,-9h-10.4z",
		"m-1.6,-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
	}
	return paths[series%len(paths)]
}

// seriesColor returns the number of a color. From the seventh series on, markers come again in
// other colors.
func seriesColor(series int) int {
	const colors = 6
	return (series + series/colors) % colors
}

// writeSVG draws charts below each other.
func writeSVG(w io.Writer, charts []Chart) error {
	height := chartHeight * len(charts)
	d := &drawing{}
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`, chartWidth, height)
	d.add("<style>%s</style>", chartStyle)
	d.add(`<rect class="page" width="%d" height="%d"/>`, chartWidth, height)
	for i, c := range charts {
		if err := c.check(); err != nil {
			return fmt.Errorf("chart %q: %w", c.Title, err)
		}
		d.add(`<g transform="translate(0,%d)">`, i*chartHeight)
		d.chart(c)
		d.add("</g>")
	}
	d.add("</svg>")
	_, err := io.WriteString(w, d.String())
	return err
}

// check refuses points that have no place in a chart.
func (c Chart) check() error {
	for _, s := range c.Series {
		for _, p := range s.Points {
			for _, v := range [...]float64{p.X, p.Y, p.Low, p.High} {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return fmt.Errorf("series %q has a point at %v, which cannot be drawn", s.Name, v)
				}
			}
			if c.LogX && p.X <= 0 {
				return fmt.Errorf("series %q has a point at %v, which a logarithmic axis has not", s.Name, p.X)
			}
		}
	}
	return nil
}

// drawing is SVG elements, one a line.
type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *drawing) text(class string, x, y float64, text string) {
	d.add(`<text class="%s" x="%.2f" y="%.2f">%s</text>`, class, x, y, escapeXML(text))
}

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.add(`<path class="%s" d="M%.2f,%.2fL%.2f,%.2f"/>`, class, x1, y1, x2, y2)
}

func (d *drawing) marker(series int, x, y float64) {
	d.add(`<path class="marker c%d" d="M%.2f,%.2f%s"/>`, seriesColor(series), x, y, markerPath(series))
}

func escapeXML(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder does not fail
	return b.String()
}

func (d *drawing) chart(c Chart) {
	longest := 0
	for _, s := range c.Series {
		longest = max(longest, textWidth(s.Name))
	}
	right := chartWidth - legendGap - legendSample - letterWidth*float64(longest) - 16
	x, y := c.xAxis(), c.yAxis()
	atX := func(v float64) float64 { return plotLeft + x.place(v)*(right-plotLeft) }
	atY := func(v float64) float64 { return plotBottom - y.place(v)*(plotBottom-plotTop) }

	d.text("title", 16, 26, c.Title)
	d.text("muted", 16, 48, c.YTitle)
	d.text("muted middle", (plotLeft+right)/2, chartHeight-14, c.XTitle)
	for _, t := range y.ticks {
		d.line("grid", plotLeft, atY(t.value), right, atY(t.value))
		d.text("muted end", plotLeft-8, atY(t.value)+4.5, t.label)
	}
	for _, t := range x.ticks {
		d.line("grid", atX(t.value), plotTop, atX(t.value), plotBottom)
		d.text("muted middle", atX(t.value), plotBottom+19, t.label)
	}
	d.line("axis", plotLeft, plotBottom, right, plotBottom)
	for i, s := range c.Series {
		d.series(i, s, atX, atY)
		middle := plotTop + 10 + float64(i*legendLine)
		left := right + legendGap
		d.line(fmt.Sprintf("line c%d", seriesColor(i)), left, middle, left+legendSample-10, middle)
		d.marker(i, left+(legendSample-10)/2, middle)
		d.text("name", left+legendSample, middle+4.5, s.Name)
	}
}

// series draws whiskers, then a line over them, then markers.
func (d *drawing) series(n int, s Series, atX, atY func(float64) float64) {
	var places, whiskers []string
	for _, p := range s.Points {
		x := atX(p.X)
		places = append(places, fmt.Sprintf("%.2f,%.2f", x, atY(p.Y)))
		if p.Low != p.High {
			low, high := atY(p.Low), atY(p.High)
			whiskers = append(whiskers, fmt.Sprintf("M%.2f,%.2fh8m-4,0V%.2fm-4,0h8", x-4, low, high))
		}
	}
	if len(whiskers) > 0 {
		d.add(`<path class="whisker c%d" d="%s"/>`, seriesColor(n), strings.Join(whiskers, ""))
	}
	d.add(`<polyline class="line c%d" points="%s"/>`, seriesColor(n), strings.Join(places, " "))
	for _, p := range s.Points {
		d.marker(n, atX(p.X), atY(p.Y))
	}
}

type tick struct {
	value float64
	label string
}

// axis is a range of values. Its ticks are values as they are given, also if the axis is
// logarithmic.
type axis struct {
	low, high float64
	log       bool
	ticks     []tick
}

// place returns where a value is, from 0 to 1.
func (a axis) place(v float64) float64 {
	if a.log {
		return math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return (v - a.low) / (a.high - a.low)
}

func (c Chart) yAxis() axis {
	high := 0.0
	for _, s := range c.Series {
		for _, p := range s.Points {
			high = max(high, p.Y, p.High)
		}
	}
	return linearAxis(0, high)
}

func (c Chart) xAxis() axis {
	low, high := math.Inf(1), math.Inf(-1)
	base := 2.0
	for _, s := range c.Series {
		for _, p := range s.Points {
			low, high = min(low, p.X), max(high, p.X)
			if mantissa, _ := math.Frexp(p.X); mantissa != 0.5 {
				base = 10
			}
		}
	}
	switch {
	case low > high: // no points
		return linearAxis(0, 1)
	case c.LogX:
		return logAxis(low, high, base)
	default:
		return linearAxis(low, high)
	}
}

// linearAxis has about five ticks at round values, and begins and ends with one.
func linearAxis(low, high float64) axis {
	if high <= low {
		high = low + 1
	}
	step := roundStep((high - low) / 5)
	first, last := math.Floor(low/step), math.Ceil(high/step)
	unit, name := 1.0, ""
	switch top := last * step; {
	case top >= 1e7:
		unit, name = 1e6, " M"
	case top >= 1e4:
		unit, name = 1e3, " k"
	}
	a := axis{low: first * step, high: last * step}
	for n := first; n <= last; n++ {
		label := "0"
		if n != 0 {
			label = strconv.FormatFloat(n*step/unit, 'g', 6, 64) + name // no 0.30000000000000004
		}
		a.ticks = append(a.ticks, tick{n * step, label})
	}
	return a
}

// roundStep returns the next of 1, 2, 2.5, 5 times a power of ten.
func roundStep(at float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(at)))
	for _, m := range [...]float64{1, 2, 2.5, 5} {
		if at <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// logAxis has ticks at powers of base, about ten at most.
func logAxis(low, high, base float64) axis {
	first := math.Floor(math.Log(low)/math.Log(base) + 1e-9)
	last := math.Ceil(math.Log(high)/math.Log(base) - 1e-9)
	last = max(last, first+1)
	a := axis{low: math.Pow(base, first), high: math.Pow(base, last), log: true}
	for n := first; n <= last; n += math.Ceil((last - first) / 10) {
		v := math.Pow(base, n)
		a.ticks = append(a.ticks, tick{v, strconv.FormatFloat(v, 'f', -1, 64)})
	}
	return a
}
