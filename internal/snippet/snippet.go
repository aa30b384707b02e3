// Package snippet reads the fenced blocks of code in the project's documents, and which test runs them.
//
// A document says it with a comment that readers do not see:
//
//	<!-- test: TestFirstMessageOfTheReadmeArrives -->
//
// which holds for all blocks behind it, up to the next such comment. A test of package main of cmd/pgamqp looks for
// blocks that no test claims; a test that claims blocks asks for all of them and runs each, so that a new block is
// run, or fails a test.
package snippet

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is one fenced block.
type Block struct {
	File     string // of the document, from the project's folder on, with slashes
	Line     int    // of its fence
	Section  string // the heading above it, without #
	Language string // what stands behind the fence
	Test     string // the test that claims it, empty if none does
	Text     string
}

// Runs is true for what can be run. A block without a language, of JSON or of YAML shows what something looks like.
func (b Block) Runs() bool { return b.Language != "" && b.Language != "json" && b.Language != "yaml" }

// String names the block in a message.
func (b Block) String() string { return fmt.Sprintf("%s:%d", b.File, b.Line) }

var (
	claim   = regexp.MustCompile(`<!-- test: (\w+) -->`)
	heading = regexp.MustCompile(`^#+ (.*)$`)
)

// Parse returns the blocks of a document, in order.
func Parse(file, text string) ([]Block, error) {
	var blocks []Block
	var test, section string
	var open *Block
	number := 0
	for line := range strings.Lines(text) {
		number++
		bare := strings.TrimSpace(line)
		switch fence := strings.HasPrefix(bare, "```"); {
		case open != nil && fence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.Text += line
		case fence:
			open = &Block{File: file, Line: number, Section: section, Language: bare[3:], Test: test}
		default:
			if m := heading.FindStringSubmatch(bare); m != nil {
				section = m[1]
			}
			if m := claim.FindStringSubmatch(bare); m != nil {
				test = m[1]
			}
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block does not end", open)
	}
	return blocks, nil
}

// Documents returns the names of README.md and of all documents in docs, from the project's folder on.
func Documents(project string) ([]string, error) {
	names := []string{"README.md"}
	err := fs.WalkDir(os.DirFS(project), "docs", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path.Ext(name) == ".md" {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

// Read returns the blocks of a document of the project.
func Read(project, file string) ([]Block, error) {
	text, err := os.ReadFile(filepath.Join(project, filepath.FromSlash(file)))
	if err != nil {
		return nil, err
	}
	return Parse(file, string(text))
}
