package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// linked is a module of which something is linked into the program.
type linked struct {
	path, version string
	licenses      []string
	files         []file // with the terms, and notices that have to go with them
}

type file struct{ name, text string }

// listed is what `go list -json` says of a package.
type listed struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// standard stands for what belongs to Go itself, which is in every program.
const standard = "Go standard library"

// collect finds all modules for all platforms of a release, and checks their licenses.
func collect() ([]linked, error) {
	all := map[string]*linked{standard: {path: standard}}
	seen := make(map[string]bool)
	for _, platform := range []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"} {
		packages, err := list(platform)
		if err != nil {
			return nil, err
		}
		for _, p := range packages {
			if p.Standard || p.Module == nil || p.Module.Main {
				continue
			}
			m := all[p.Module.Path]
			if m == nil {
				m = &linked{path: p.Module.Path, version: p.Module.Version}
				all[m.path] = m
			}
			if err := m.addFolders(p.Dir, p.Module.Dir, seen); err != nil {
				return nil, err
			}
		}
	}
	root, err := output(nil, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := all[standard].addFolders(strings.TrimSpace(string(root)), strings.TrimSpace(string(root)), seen); err != nil {
		return nil, err
	}
	var out []linked
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(all)) {
		errs = append(errs, all[path].judge())
		out = append(out, *all[path])
	}
	return out, errors.Join(errs...)
}

// list returns what the program consists of on a platform.
func list(platform string) ([]listed, error) {
	system, machine, _ := strings.Cut(platform, "/")
	out, err := output([]string{"CGO_ENABLED=0", "GOOS=" + system, "GOARCH=" + machine},
		"list", "-deps", "-json=Dir,Standard,Module", "github.com/pgamqp/pgamqp/cmd/pgamqp")
	if err != nil {
		return nil, err
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

func output(environment []string, args ...string) ([]byte, error) {
	var said strings.Builder
	cmd := exec.Command("go", args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), environment...), &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return out, nil
}

var (
	terms   = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([.-].*)?$`)
	notices = regexp.MustCompile(`(?i)^(notice|patents)(\..*)?$`)
)

// addFolders adds the files with terms of the folder of a package, and of those above it up to its module's: a part of a
// module may come from somebody else.
func (m *linked) addFolders(folder, root string, seen map[string]bool) error {
	for ; !seen[folder]; folder = filepath.Dir(folder) {
		seen[folder] = true
		entries, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() || !terms.MatchString(e.Name()) && !notices.MatchString(e.Name()) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, e.Name()))
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, filepath.Join(folder, e.Name()))
			if err != nil {
				return err
			}
			m.files = append(m.files, file{name, string(text)})
		}
		if folder == root {
			break
		}
	}
	return nil
}

// judge finds out what licenses a module has, and whether it may.
func (m *linked) judge() error {
	slices.SortFunc(m.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	for _, f := range m.files {
		if notices.MatchString(filepath.Base(f.name)) {
			continue
		}
		found, err := classify(f.text)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", m.path, f.name, err)
		}
		m.licenses = append(m.licenses, found...)
	}
	slices.Sort(m.licenses)
	m.licenses = slices.Compact(m.licenses)
	if len(m.licenses) == 0 {
		return fmt.Errorf("%s: it has no file with a license", m.path)
	}
	for _, l := range m.licenses {
		if !slices.Contains(allowed(), l) && exceptions()[m.path].license != l {
			return fmt.Errorf("%s: its license, %s, is not allowed", m.path, l)
		}
	}
	return nil
}

// page is docs/licenses.md.
func page(all []linked) string {
	var b strings.Builder
	b.WriteString("# Licenses\n\nWhat is linked into the programs of a release, on any platform, and under which license. pgamqp itself has the license of\n" +
		"PostgreSQL ([LICENSE](../LICENSE)). Packages and images have the texts in `/usr/share/doc/pgamqp/licenses.txt`.\n\n" +
		"Made by `go run ./internal/licenses page >docs/licenses.md`; a test compares it with what is linked, and fails for a license that is not\n" +
		"known, or is none of " + strings.Join(allowed(), ", ") + ".\n\n| module | version | license |\n|---|---|---|\n")
	for _, m := range all {
		license := strings.Join(m.licenses, " AND ")
		if e, listed := exceptions()[m.path]; listed {
			license += ": " + e.reason
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.path, m.version, license)
	}
	return b.String()
}

// texts is what packages have to carry.
func texts(all []linked) string {
	var b strings.Builder
	b.WriteString("The program pgamqp contains parts of the following, under these terms.\n")
	for _, m := range all {
		for _, f := range m.files {
			fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.TrimSpace(strings.Join([]string{m.path, m.version, f.name}, " ")), strings.TrimSpace(f.text))
		}
	}
	return b.String()
}
