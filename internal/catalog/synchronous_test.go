package catalog

import "testing"

func TestNamesOfSynchronousStandbysAreReadAsPostgreSQLDoes(t *testing.T) {
	for names, want := range map[string]chosen{
		"":                             never,
		"other":                        never,
		"*":                            always,
		"pgamqp":                       always,
		"PGAMQP":                       always,
		`"pgamqp"`:                     always,
		"other, pgamqp":                perhaps,
		"other,*":                      perhaps,
		"2 (other, pgamqp)":            always,
		"FIRST 1 (other, *)":           perhaps,
		"first 2 (other, third, *)":    perhaps,
		"ANY 1 (other, third, pgamqp)": always,
		`any 1 ( "other" , "x y" )`:    never,
		`"not ""pgamqp"""`:             never,
		"pgamqp2":                      never,
	} {
		if got := synchronous(names, "pgamqp"); got != want {
			t.Errorf("%s: %d, want %d", names, got, want)
		}
	}
}
