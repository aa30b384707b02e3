package bench

import (
	"context"
	"errors"
	"fmt"
)

// Progress is told how far a run is. Its methods are called by one goroutine.
type Progress interface {
	// Begin says that step number done of total begins.
	Begin(done, total int, what string)
	// At says how much of the current step is done, from 0 to 1.
	At(fraction float64)
	// End says that the current step is done, and what it has measured.
	End(what string)
}

// measure runs the cases of sections by turns, and returns their tables.
func (w *world) measure(ctx context.Context, sections []Section) ([]*Table, error) {
	total, done := 0, 0
	for _, s := range sections {
		total += w.options.Runs * len(s.Cases)
	}
	var tables []*Table
	for _, s := range sections {
		t := &Table{Name: s.Name, Title: s.Title, Columns: s.Columns, Compared: s.Compared, Against: s.Against}
		for _, c := range s.Cases {
			t.Rows = append(t.Rows, &Row{Name: c.Name, Base: c.Base})
		}
		err := w.measureSection(ctx, &s, t, func(what string) { w.progress.Begin(done, total, what); done++ })
		t.summarize()
		tables = append(tables, t) // also what there is of one that failed
		if err != nil {
			return tables, fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	return tables, nil
}

// measureSection lets each round begin with another case, so that none has always the
// same one in front of it.
func (w *world) measureSection(ctx context.Context, s *Section, t *Table, begin func(string)) (err error) {
	if s.Clean != nil {
		defer func() { err = errors.Join(err, s.Clean(context.WithoutCancel(ctx))) }()
	}
	if s.Prepare != nil {
		w.progress.Begin(0, 0, s.Name+": preparing")
		if err := s.Prepare(ctx); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		w.progress.End("")
	}
	for round := range w.options.Runs {
		for i := range s.Cases {
			n := (i + round) % len(s.Cases)
			c := s.Cases[n]
			begin(s.Name + ": " + c.Name)
			sample, err := c.Run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			t.Rows[n].Samples = append(t.Rows[n].Samples, sample)
			w.progress.End(describe(t.Columns, t.Compared, sample))
		}
	}
	return nil
}

// describe names the figure of a sample that matters.
func describe(columns []Column, key string, s Sample) string {
	for _, c := range columns {
		if v, ok := s[c.Key]; ok && c.Key == key {
			return show(v, c.Digits) + " " + c.Title
		}
	}
	return ""
}
