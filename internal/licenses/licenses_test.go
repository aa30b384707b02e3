package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLicensesAreAllowedAndListed: each module that is linked in has a license that is known and allowed, docs/licenses.md lists it, and
// the text for packages has the terms of each.
func TestLicensesAreAllowedAndListed(t *testing.T) {
	all, err := collect()
	if err != nil {
		t.Fatal(err)
	}
	listed, err := os.ReadFile(filepath.Join("..", "..", "docs", "licenses.md"))
	if err != nil {
		t.Fatal(err)
	}
	var now, legal bytes.Buffer
	if err := run([]string{"page"}, &now); err != nil {
		t.Fatal(err)
	}
	if now.String() != string(listed) {
		t.Errorf("docs/licenses.md is not up to date: go run ./internal/licenses page >docs/licenses.md\n%s", now.String())
	}
	if err := run([]string{"texts"}, &legal); err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Errorf("only %d modules", len(all))
	}
	for _, m := range all {
		for _, f := range m.files {
			if !strings.Contains(legal.String(), m.path) || !strings.Contains(legal.String(), strings.TrimSpace(f.text)) {
				t.Errorf("the texts lack %s of %s", f.name, m.path)
			}
		}
	}
	if !slices.ContainsFunc(all, func(m linked) bool { return m.path == "github.com/jackc/pgx/v5" }) {
		t.Error("pgx is not found")
	}
}

// Words of licenses, as short as they can be told apart.
const (
	mit    = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal in the Software without restriction`
	bsd2   = "Redistribution and use in source and binary forms, with or without\n// modification, are permitted provided that the following conditions are met:"
	bsd3   = bsd2 + " ... endorse or promote products derived from\n# this software without specific prior written permission."
	apache = "   Apache License\n   Version 2.0, January 2004"
	mpl    = "Mozilla Public License Version 2.0 ... GNU General Public License"
)

func TestLicensesAreToldApart(t *testing.T) {
	for _, c := range []struct{ text, want, problem string }{
		{mit, "MIT", ""},
		{bsd2, "BSD-2-Clause", ""},
		{bsd3, "BSD-3-Clause", ""},
		{apache, "Apache-2.0", ""},
		{mit + "\n" + apache, "Apache-2.0 MIT", ""},
		{"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted", "ISC", ""},
		{"Permission to use, copy, modify, and distribute this software and its documentation for any purpose, without fee, and without a written agreement is hereby granted", "PostgreSQL", ""},
		{mpl, "", "MPL-2.0, is not allowed"},
		{"GNU GENERAL PUBLIC LICENSE Version 3", "", "is not known"},
		{"All rights reserved.", "", "is not known"},
		{"", "", "is not known"},
		{mit + "\n\"Commons Clause\" License Condition v1.0", "", `says something about "commons clause"`},
		{bsd3 + " For non-commercial use.", "", `says something about "non commercial"`},
		{mit + " Parts are under the GNU Affero license.", "", `says something about "gnu"`},
	} {
		m := linked{path: "example.org/m", files: []file{{"LICENSE", c.text}, {"NOTICE", "unknown"}}}
		err := m.judge()
		switch {
		case c.problem == "" && (err != nil || strings.Join(m.licenses, " ") != c.want):
			t.Errorf("%q is %q, %v, want %s", c.text, m.licenses, err, c.want)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%q: %v, want %q", c.text, err, c.problem)
		}
	}
	none := linked{path: "example.org/m", files: []file{{"NOTICE", mit}}}
	if err := none.judge(); err == nil || !strings.Contains(err.Error(), "no file with a license") {
		t.Errorf("without a license: %v", err)
	}
}

func TestLicensesOfPartsAreFound(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LICENSE", "license_test.go", "NOTICE.txt", "a/COPYING", "a/b/LICENSE-MIT.md", "a/b/licenses.go"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(mit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := linked{path: "example.org/m"}
	seen := make(map[string]bool)
	for _, folder := range []string{inner, root, inner} {
		if err := m.addFolders(folder, root, seen); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.judge(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range m.files {
		names = append(names, f.name)
	}
	if want := []string{"LICENSE", "NOTICE.txt", "a/COPYING", "a/b/LICENSE-MIT.md"}; !slices.Equal(names, want) {
		t.Errorf("found %q, want %q", names, want)
	}
}
