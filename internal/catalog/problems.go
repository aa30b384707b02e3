package catalog

import (
	"log/slog"
	"strings"
)

// Kind tells problems apart that an operator deals with in different ways, from the
// least grave.
type Kind int

// The kinds of problems.
const (
	Setup              Kind = iota // something was never set up, or is set otherwise
	PublicationMissing             // it was there when pgamqp was installed
	SlotGone                       // so was the slot
	SlotLost                       // the slot is there, and what was in it is not
)

// Problem is something that an operator has to put right.
type Problem struct {
	Kind Kind
	What string // a clause, lower case
	Fix  string // a command or what to do; may be empty
}

// String puts both into one line.
func (p Problem) String() string {
	if p.Fix == "" {
		return p.What
	}
	return p.What + "; fix: " + p.Fix
}

// ProblemsError lists all that stands in the way, in the order in which to fix it.
type ProblemsError struct {
	Action   string // what could not be done: "install", "run"
	Problems []Problem
}

// Gravest returns the kind of the gravest problem.
func (e *ProblemsError) Gravest() Kind {
	gravest := Setup
	for _, p := range e.Problems {
		gravest = max(gravest, p.Kind)
	}
	return gravest
}

// Error puts each problem and its fix on a line.
func (e *ProblemsError) Error() string {
	var b strings.Builder
	b.WriteString(e.Action)
	b.WriteString(":")
	for _, p := range e.Problems {
		if len(e.Problems) == 1 {
			b.WriteString(" ")
		} else {
			b.WriteString("\n  - ")
		}
		b.WriteString(p.What)
		if p.Fix == "" {
			continue
		}
		if len(e.Problems) == 1 {
			b.WriteString("; ")
		} else {
			b.WriteString("\n    ")
		}
		b.WriteString("fix: ")
		b.WriteString(p.Fix)
	}
	return b.String()
}

// LogValue is one attribute for each problem.
func (e *ProblemsError) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, len(e.Problems))
	for _, p := range e.Problems {
		attrs = append(attrs, slog.String("problem", p.What), slog.String("fix", p.Fix))
	}
	return slog.GroupValue(attrs...)
}

// problems collects findings; it becomes an error only when there are any.
type problems []Problem

func (p *problems) add(what, fix string) { p.addAs(Setup, what, fix) }

func (p *problems) addAs(kind Kind, what, fix string) {
	*p = append(*p, Problem{Kind: kind, What: what, Fix: fix})
}

func (p problems) err(action string) error {
	if len(p) == 0 {
		return nil
	}
	return &ProblemsError{Action: action, Problems: p}
}
