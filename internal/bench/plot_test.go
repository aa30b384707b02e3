package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// drawn is what a test looks at in an SVG.
type drawn struct {
	lines  [][][2]float64 // x, y of the points of each series
	texts  []string
	styles int
}

func draw(t *testing.T, charts ...Chart) drawn {
	t.Helper()
	var b strings.Builder
	if err := writeSVG(&b, charts); err != nil {
		t.Fatal(err)
	}
	var found drawn
	element := ""
	for decoder := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%v in %s", err, &b)
		}
		switch token := token.(type) {
		case xml.StartElement:
			element = token.Name.Local
			if element == "polyline" {
				found.lines = append(found.lines, places(t, token))
			}
		case xml.EndElement:
			element = ""
		case xml.CharData:
			switch element {
			case "text":
				found.texts = append(found.texts, string(token))
			case "style":
				found.styles++
			}
		}
	}
}

func places(t *testing.T, e xml.StartElement) (points [][2]float64) {
	t.Helper()
	i := slices.IndexFunc(e.Attr, func(a xml.Attr) bool { return a.Name.Local == "points" })
	for pair := range strings.FieldsSeq(e.Attr[i].Value) {
		x, y, _ := strings.Cut(pair, ",")
		px, errX := strconv.ParseFloat(x, 64)
		py, errY := strconv.ParseFloat(y, 64)
		if err := errors.Join(errX, errY); err != nil {
			t.Fatal(err)
		}
		points = append(points, [2]float64{px, py})
	}
	return points
}

func near(a, b float64) bool { return math.Abs(a-b) < 0.03 } // places are rounded to 0.01

func TestPlacesOfPoints(t *testing.T) {
	for _, test := range []struct {
		name string
		log  bool
		x    [3]float64
	}{
		{"linear", false, [3]float64{10, 20, 30}},
		{"powers of two", true, [3]float64{16, 64, 256}},
		{"powers of ten", true, [3]float64{1, 10, 100}},
		{"between powers of ten", true, [3]float64{3, 30, 300}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := draw(t, Chart{LogX: test.log, Series: []Series{{Points: []Point{
				{X: test.x[0], Y: 0}, {X: test.x[1], Y: 1000}, {X: test.x[2], Y: 2000, Low: 1000, High: 2400},
			}}}})
			p := got.lines[0]
			if p[0][1] != plotBottom {
				t.Errorf("0 is at y %v, want %v", p[0][1], plotBottom)
			}
			if once, twice := plotBottom-p[1][1], plotBottom-p[2][1]; !near(2*once, twice) || once <= 0 {
				t.Errorf("heights of 1000 and 2000 are %v and %v", once, twice)
			}
			if first, second := p[1][0]-p[0][0], p[2][0]-p[1][0]; !near(first, second) || first <= 0 {
				t.Errorf("distances of x are %v and %v, want the same", first, second)
			}
			if p[2][1] < plotTop || p[0][0] < plotLeft || p[2][0] > chartWidth {
				t.Errorf("points are outside of the plot: %v", p)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	const odd = `a < b & "c" > 'd'` + "µ"
	got := draw(t,
		Chart{Title: odd, XTitle: "window", YTitle: "messages/s", Series: []Series{{Name: "<limit>", Points: []Point{{X: 1, Y: 2}}}}},
		Chart{Title: "no points"},
	)
	for _, want := range []string{odd, "window", "messages/s", "<limit>", "no points"} {
		if !slices.Contains(got.texts, want) {
			t.Errorf("no text %q in %q", want, got.texts)
		}
	}
	if got.styles != 1 {
		t.Errorf("%d styles, want 1", got.styles)
	}
}

func TestWhiskers(t *testing.T) {
	for _, test := range []struct {
		point Point
		want  int
	}{
		{Point{X: 1, Y: 2}, 0},
		{Point{X: 1, Y: 2, Low: 2, High: 2}, 0},
		{Point{X: 1, Y: 2, Low: 1, High: 3}, 1},
	} {
		var b strings.Builder
		if err := writeSVG(&b, []Chart{{Series: []Series{{Points: []Point{test.point}}}}}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(b.String(), `class="whisker`); got != test.want {
			t.Errorf("%d whiskers for %v, want %d", got, test.point, test.want)
		}
	}
}

func TestAxes(t *testing.T) {
	for _, test := range []struct {
		name string
		axis axis
		want string
	}{
		{"small", linearAxis(0, 0.9), "0 0.2 0.4 0.6 0.8 1"},
		{"exact", linearAxis(0, 50), "0 10 20 30 40 50"},
		{"quarters", linearAxis(0, 12), "0 2.5 5 7.5 10 12.5"},
		{"thousands", linearAxis(0, 43000), "0|10 k|20 k|30 k|40 k|50 k"},
		{"millions", linearAxis(0, 12e6), "0|2.5 M|5 M|7.5 M|10 M|12.5 M"},
		{"not from 0", linearAxis(101, 149), "100 110 120 130 140 150"},
		{"nothing", linearAxis(0, 0), "0 0.2 0.4 0.6 0.8 1"},
		{"two", logAxis(16, 256, 2), "16 32 64 128 256"},
		{"two, many", logAxis(1, 1<<20, 2), "1 4 16 64 256 1024 4096 16384 65536 262144 1048576"},
		{"ten", logAxis(0.1, 1000, 10), "0.1 1 10 100 1000"},
		{"between", logAxis(30, 500, 10), "10 100 1000"},
		{"one value", logAxis(64, 64, 2), "64 128"},
	} {
		separator := " "
		if strings.Contains(test.want, "|") {
			separator = "|"
		}
		var labels []string
		for _, tick := range test.axis.ticks {
			labels = append(labels, tick.label)
		}
		if got := strings.Join(labels, separator); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestImpossiblePoints(t *testing.T) {
	for _, test := range []struct {
		name string
		log  bool
		p    Point
	}{
		{"no number", false, Point{X: 1, Y: math.NaN()}},
		{"infinite", false, Point{X: math.Inf(1), Y: 1}},
		{"logarithm of 0", true, Point{X: 0, Y: 1}},
	} {
		err := writeSVG(io.Discard, []Chart{{LogX: test.log, Series: []Series{{Points: []Point{test.p}}}}})
		if err == nil {
			t.Errorf("%s: no error", test.name)
		}
	}
}

func TestMarkersAndColors(t *testing.T) {
	type look struct {
		marker string
		color  int
	}
	looks := make(map[look]bool)
	for i := range 12 {
		looks[look{markerPath(i), seriesColor(i)}] = true
	}
	if len(looks) != 12 {
		t.Errorf("12 series have %d looks", len(looks))
	}
}
