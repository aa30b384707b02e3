package bench

import (
	"context"
	"slices"
)

// Sample is what one run of a case has measured, by the keys of its section's columns. A
// figure that could not be taken (the CPU time of a server on another machine) is absent.
type Sample map[string]float64

// Column is one figure of a section.
type Column struct {
	Key    string `json:"key"`
	Title  string `json:"title"`
	Digits int    `json:"-"` // behind the decimal point, when shown
}

// Case is one thing that is measured.
type Case struct {
	Name string
	// Base names the case that this one is compared with; empty for none.
	Base string
	Run  func(context.Context) (Sample, error)
}

// Section is cases that are measured by turns and compared.
type Section struct {
	Name, Title string
	Columns     []Column
	// Compared is the key of the column that ratios are made of; Against says in a word what
	// the bases are.
	Compared, Against string
	Cases             []Case
	// Prepare makes what the cases need; Clean removes it. Both may be nil.
	Prepare func(context.Context) error
	Clean   func(context.Context) error
}

// Row is the result of a case.
type Row struct {
	Name    string   `json:"case"`
	Base    string   `json:"compared_with,omitempty"`
	Samples []Sample `json:"samples"`
	// Ratios holds, for each sample, this case's figure divided by that of Base in the same
	// round.
	Ratios []float64 `json:"ratios,omitempty"`
	// Summary holds the statistics of the samples, by column, and of the ratios as "ratio".
	Summary map[string]Statistic `json:"summary"`
}

// Table is the result of a section.
type Table struct {
	Name     string   `json:"section"`
	Title    string   `json:"title"`
	Columns  []Column `json:"columns"`
	Compared string   `json:"compared"`
	Against  string   `json:"against"`
	Rows     []*Row   `json:"rows"`
}

// Report is everything that one call has measured.
type Report struct {
	Version  string            `json:"version"`
	Machine  map[string]string `json:"machine"`
	Options  map[string]string `json:"options"`
	Sections []*Table          `json:"sections"`
	// Notes say what was asked for and could not be measured.
	Notes []string `json:"notes,omitempty"`
}

// Statistic says how samples are spread.
type Statistic struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// ratioKey is the key of the ratios in a summary.
const ratioKey = "ratio"

// statisticOf returns the spread of values, and false if there are none.
func statisticOf(values []float64) (Statistic, bool) {
	if len(values) == 0 {
		return Statistic{}, false
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Statistic{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}, true
}

// summarize fills in what follows from the samples.
func (t *Table) summarize() {
	byName := make(map[string]*Row)
	for _, r := range t.Rows {
		byName[r.Name] = r
	}
	for _, r := range t.Rows {
		r.Summary = make(map[string]Statistic)
		for _, c := range t.Columns {
			var values []float64
			for _, s := range r.Samples {
				if v, ok := s[c.Key]; ok {
					values = append(values, v)
				}
			}
			if s, ok := statisticOf(values); ok {
				r.Summary[c.Key] = s
			}
		}
		r.Ratios = nil
		if base := byName[r.Base]; base != nil {
			for i, s := range r.Samples {
				if v, ok := s[t.Compared]; ok && i < len(base.Samples) && base.Samples[i][t.Compared] > 0 {
					r.Ratios = append(r.Ratios, v/base.Samples[i][t.Compared])
				}
			}
		}
		if s, ok := statisticOf(r.Ratios); ok {
			r.Summary[ratioKey] = s
		}
	}
}

// row returns the row of a name, nil if there is none.
func (t *Table) row(name string) *Row {
	for _, r := range t.Rows {
		if r.Name == name {
			return r
		}
	}
	return nil
}
