package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/snippet"
)

var (
	fencedBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inlineCode  = regexp.MustCompile("`[^`\n]*`")
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	anyHeading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors returns the names that the headings of a document have in links, as GitHub makes them.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range anyHeading.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1) {
		title := regexp.MustCompile(`<!--.*?-->|\]\([^)]*\)`).ReplaceAllString(m[1], "")
		name := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

// brokenLinks tells which links of a document to files and headings of the project lead nowhere.
func brokenLinks(file, text string, read func(file string) (string, error)) (wrong []string, to []string) {
	prose := inlineCode.ReplaceAllString(fencedBlock.ReplaceAllString(text, ""), "")
	for _, m := range link.FindAllStringSubmatch(prose, -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		target, anchor, _ := strings.Cut(m[1], "#")
		name := file
		if target != "" {
			name = path.Join(path.Dir(file), target)
		}
		to = append(to, name)
		linked, err := read(name)
		if err != nil || anchor != "" && !anchors(linked)[anchor] {
			wrong = append(wrong, m[1])
		}
	}
	return wrong, to
}

// TestLinksOfTheDocumentsLeadSomewhere looks at the links to our own files, and for pages that no other page leads to.
func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	project := filepath.Join("..", "..")
	documents, err := snippet.Documents(project)
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) (string, error) {
		info, err := os.Stat(filepath.Join(project, file))
		if err != nil || info.IsDir() {
			return "", err
		}
		text, err := os.ReadFile(filepath.Join(project, file))
		return string(text), err
	}
	linked := map[string]bool{"README.md": true}
	for _, file := range append(documents, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md") {
		wrong, to := brokenLinks(file, document(t, file), read)
		for _, w := range wrong {
			t.Errorf("%s: the link %s leads nowhere", file, w)
		}
		for _, name := range to {
			linked[name] = linked[name] || name != file
		}
	}
	for _, file := range documents {
		if !linked[file] {
			t.Errorf("no page leads to %s", file)
		}
	}
}

func TestCheckOfTheLinksFindsMistakes(t *testing.T) {
	files := map[string]string{
		"docs/a.md": "# Title\n## Its `part`, *two* & more\n```sh\n# no heading\n```\n### [Go](x.go) <!-- test: TestA -->\n",
		"docs/x.go": "",
	}
	read := func(file string) (string, error) {
		text, there := files[file]
		if !there {
			return "", os.ErrNotExist
		}
		return text, nil
	}
	const text = "[a](a.md) [b](a.md#its-part-two--more) [c](#here) [d](x.go) [e](a.md#go) `[f](gone.md)` [g](https://gone.example/) ![h](gone.svg)\n" +
		"## Here\n[i](a.md#no-heading) [j](../docs/a.md#title)\n```md\n[k](gone.md)\n```\n[l](../gone/) [m](#nowhere)\n"
	files["docs/b.md"] = text
	wrong, to := brokenLinks("docs/b.md", text, read)
	if got := strings.Join(wrong, " "); got != "gone.svg a.md#no-heading ../gone/ #nowhere" {
		t.Errorf("found %q", got)
	}
	if len(to) != 10 || to[0] != "docs/a.md" {
		t.Errorf("the links lead to %q", to)
	}
}

// TestPicturesAreThereForThoseWhoCannotSee: a drawing is a well-formed document with a title and a description.
func TestPicturesAreThereForThoseWhoCannotSee(t *testing.T) {
	drawings, err := filepath.Glob(filepath.Join("..", "..", "docs", "concepts*.svg"))
	if err != nil || len(drawings) != 1 {
		t.Fatalf("drawings %q, %v", drawings, err)
	}
	for _, file := range drawings {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if e, ok := token.(xml.StartElement); ok {
				found[e.Name.Local] = true
			}
		}
		if !found["title"] || !found["desc"] {
			t.Errorf("%s has no title or no description", file)
		}
	}
}
