package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

const (
	barCells = 24
	// redrawPause is the shortest time between two drawings of the same step.
	redrawPause = 100 * time.Millisecond
)

// NewProgress shows on out how far a run is: live as a line that overwrites itself, for a
// terminal; otherwise with a line for each step that is done, for a file.
func NewProgress(out io.Writer, live bool) Progress {
	if live {
		return &liveProgress{out: out, now: time.Now}
	}
	return &plainProgress{out: out}
}

// step is what Begin has told. One of no total is outside of the count.
type step struct {
	done, total int
	what        string
}

func (s step) counted() bool { return s.total > 0 }

// String names a step by its number among all, from 1.
func (s step) String() string {
	if !s.counted() {
		return s.what
	}
	return fmt.Sprintf("%d/%d %s", s.done+1, s.total, s.what)
}

type plainProgress struct {
	out  io.Writer
	step step
}

// Begin writes a step that is outside of the count at once, as it has no result to wait for.
func (p *plainProgress) Begin(done, total int, what string) {
	p.step = step{done, total, what}
	if !p.step.counted() {
		fmt.Fprintln(p.out, p.step)
	}
}

func (p *plainProgress) At(float64) {}

func (p *plainProgress) End(result string) {
	switch {
	case !p.step.counted():
	case result == "":
		fmt.Fprintln(p.out, p.step)
	default:
		fmt.Fprintf(p.out, "%s: %s\n", p.step, result)
	}
}

// liveProgress clears its line when the last step is done.
type liveProgress struct {
	out io.Writer
	now func() time.Time

	step     step
	fraction float64 // of step, from 0 to 1
	began    time.Time
	drawn    time.Time

	// The whole; steps outside of the count leave it as it is.
	finished, total int
	spent           time.Duration // for measured steps
	measured        int           // steps that began and ended here
}

func (p *liveProgress) Begin(done, total int, what string) {
	p.step, p.fraction, p.began = step{done, total, what}, 0, p.now()
	if p.step.counted() {
		p.finished, p.total = done, total
	}
	p.draw()
}

func (p *liveProgress) At(fraction float64) {
	if math.IsNaN(fraction) { // nothing of nothing
		return
	}
	p.fraction = min(max(fraction, 0), 1)
	if p.now().Sub(p.drawn) >= redrawPause {
		p.draw()
	}
}

func (p *liveProgress) End(string) {
	if !p.step.counted() {
		return
	}
	p.finished++
	p.measured++
	p.spent += p.now().Sub(p.began)
	if p.finished == p.total {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// draw writes the line, with what varies in length at its end. The terminal is told not to wrap
// it, as \r would not return to the beginning of a wrapped one.
func (p *liveProgress) draw() {
	p.drawn = p.now()
	done := float64(p.finished)
	if p.step.counted() {
		done += p.fraction
	}
	cells := 0
	if p.total > 0 {
		cells = min(int(done/float64(p.total)*barCells), barCells)
	}
	bar := strings.Repeat("█", cells) + strings.Repeat("░", barCells-cells)
	left := ""
	if p.measured > 0 {
		mean := float64(p.spent) / float64(p.measured)
		d := time.Duration(mean * (float64(p.total) - done)).Round(time.Second)
		left = fmt.Sprintf(", %v left", d)
	}
	fmt.Fprintf(p.out, "\r\x1b[?7l%s %s %.0f %%%s\x1b[K\x1b[?7h", bar, p.step, math.Floor(p.fraction*100), left)
}
