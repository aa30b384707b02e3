package main

import (
	"fmt"
	"regexp"
	"strings"
)

// Licenses, by their SPDX identifiers.
const (
	licenseApache     = "Apache-2.0"
	licenseBSD2       = "BSD-2-Clause"
	licenseBSD3       = "BSD-3-Clause"
	licenseISC        = "ISC"
	licenseMIT        = "MIT"
	licenseMPL        = "MPL-2.0"
	licensePostgreSQL = "PostgreSQL"
)

// allowed are the licenses that what is linked into the program may have, without asking.
func allowed() []string {
	return []string{licenseApache, licenseBSD2, licenseBSD3, licenseISC, licenseMIT, licensePostgreSQL}
}

// exceptions are modules whose license needs a reason, by path: which license, and why it is all right.
func exceptions() map[string]struct{ license, reason string } { return nil }

// sentences are what a license has and no other one, in the form of plain.
func sentences() []struct{ license, text string } {
	return []struct{ license, text string }{
		{licenseApache, "apache license version 2 0"},
		{licenseMIT, "permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation files the software to deal in the software without restriction"},
		{licenseISC, "distribute this software for any purpose with or without fee is hereby granted"},
		{licensePostgreSQL, "distribute this software and its documentation for any purpose without fee and without a written agreement is hereby granted"},
		{licenseMPL, "mozilla public license version 2 0"},
	}
}

// obstacles are words of terms that take back what the rest of a text allows.
func obstacles() []string {
	return []string{"gnu", "affero", "copyleft", "commons clause", "business source", "non commercial", "noncommercial", "server side public", "elastic license"}
}

var (
	separators = regexp.MustCompile(`[^a-z0-9]+`)
	//nolint:misspell // both spellings are met
	licenceWord = regexp.MustCompile(`\blicence`)
)

// plain makes texts comparable: small letters, digits and single blanks.
func plain(text string) string {
	return " " + licenceWord.ReplaceAllString(strings.TrimSpace(separators.ReplaceAllString(strings.ToLower(text), " ")), "license") + " "
}

// classify returns the licenses that a text grants, all of which hold. A text that is not known is an error: somebody has to read it.
func classify(text string) ([]string, error) {
	words := plain(text)
	var found []string
	for _, s := range sentences() {
		if strings.Contains(words, s.text) {
			found = append(found, s.license)
		}
	}
	if strings.Contains(words, "redistribution and use in source and binary forms with or without modification are permitted provided that the following conditions are met") {
		if strings.Contains(words, "endorse or promote products derived from this software without specific prior written permission") {
			found = append(found, licenseBSD3)
		} else {
			found = append(found, licenseBSD2)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the license is not known: %.80q", text)
	}
	for _, o := range obstacles() {
		if strings.Contains(words, " "+o+" ") && found[0] != licenseMPL {
			return nil, fmt.Errorf("the license, %s, says something about %q", strings.Join(found, " AND "), o)
		}
	}
	return found, nil
}
