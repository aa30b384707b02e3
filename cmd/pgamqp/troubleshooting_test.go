package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// messagesOfSQL reads what the scripts raise, and fails where it cannot.
func messagesOfSQL(t *testing.T) []message {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "sql", "*.sql"))
	extension, _ := filepath.Glob(filepath.Join("..", "..", "sql", "extension", "*.sql"))
	files = append(files, extension...)
	if err != nil || len(extension) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	const constant = `'((?:[^']|'')*)'(?:\s*\n\s*'((?:[^']|'')*)')?`
	raises := regexp.MustCompile(`raise\s+(?:exception|warning|notice)\s+(?:` + constant + `|using)`)
	refusals := regexp.MustCompile(`perform amqp\._refuse(_value)?\((?:place, value,)?\s*(?:format\()?` + constant)
	all := regexp.MustCompile(`raise\s+(?:exception|warning|notice)|perform amqp\._refuse(?:_value)?\(`)
	var found []message
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for _, m := range raises.FindAllStringSubmatch(string(text), -1) {
			read++
			if m[1] != "" { // else it raises what amqp._refuse was called with
				found = append(found, message{unquoted(m[1] + m[2]), false, file})
			}
		}
		for _, m := range refusals.FindAllStringSubmatch(string(text), -1) {
			read++
			found = append(found, message{unquoted(m[2] + m[3]), m[1] != "", file})
		}
		if n := len(all.FindAllString(string(text), -1)); n != read {
			t.Errorf("%s tells %d messages, %d of them could be read: write the text as the first argument", file, n, read)
		}
	}
	return found
}

// unquoted returns the text of a constant of SQL; inside a string that is executed a % is doubled.
func unquoted(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "''", "'"), "%%", "%")
}

func (m message) file() string {
	file, _, _ := strings.Cut(m.at, ":")
	return file
}

// pattern matches the text of the page that stands for a message: placeholders in angle brackets for what is filled in.
func (m message) pattern() *regexp.Regexp {
	var b strings.Builder
	rest := strings.ReplaceAll(m.text, "%%", "\x00")
	for {
		at := verbs().FindStringIndex(rest)
		if at == nil {
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		switch verb := rest[at[0]:at[1]]; {
		case verb == "%w":
			b.WriteString(`.+`) // another message, perhaps
		case verb == "%s" && strings.HasSuffix(m.file(), ".go"):
			b.WriteString(`(?:[^<>]*<[^<>]+>[^<>]*)+`)
		case strings.HasSuffix(verb, "q"):
			b.WriteString(`"<[^<>]+>"`)
		default:
			b.WriteString(`<[^<>]+>`)
		}
		rest = rest[at[1]:]
	}
	b.WriteString(regexp.QuoteMeta(rest))
	p := strings.ReplaceAll(b.String(), "\x00", "%")
	if !m.part {
		p = "^" + p + "$"
	}
	return regexp.MustCompile(p)
}

// explained returns the texts in the first columns of a page's tables, without those that others say.
func explained(page string) []string {
	page = regexp.MustCompile(`(?s)<!-- others -->.*?<!-- /others -->`).ReplaceAllString(page, "")
	span := regexp.MustCompile("``(.+?)``|`([^`]+)`")
	var texts []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		first, _, _ := strings.Cut(line[2:], " | ")
		for _, m := range span.FindAllStringSubmatch(first, -1) {
			texts = append(texts, m[1]+m[2])
		}
	}
	return texts
}

// compareMessages tells what the page does not explain, and what it explains though nothing says it.
func compareMessages(said []message, page string) (wrong []string) {
	texts := explained(page)
	used := make([]bool, len(texts))
	for _, m := range said {
		p, found := m.pattern(), false
		for i, text := range texts {
			if p.MatchString(text) {
				found, used[i] = true, true
			}
		}
		if !found {
			wrong = append(wrong, fmt.Sprintf("%s: not explained: %s", m.at, m.text))
		}
	}
	for i, text := range texts {
		if !used[i] {
			wrong = append(wrong, "nothing says any more: "+text)
		}
		if slices.Index(texts, text) < i {
			wrong = append(wrong, "explained twice: "+text)
		}
	}
	return wrong
}

// TestTroubleshootingExplainsEveryMessage keeps docs/troubleshooting.md complete: errors and warnings of the program and
// of the SQL functions stand in it, word by word.
func TestTroubleshootingExplainsEveryMessage(t *testing.T) {
	ofGo, ofSQL := messagesOfGo(t), messagesOfSQL(t)
	if len(ofGo) < 300 || len(ofSQL) < 40 {
		t.Errorf("found only %d messages in Go and %d in SQL", len(ofGo), len(ofSQL))
	}
	for _, w := range compareMessages(slices.Concat(ofGo, ofSQL), document(t, "docs", "troubleshooting.md")) {
		t.Errorf("docs/troubleshooting.md: %s", w)
	}
}

func TestCheckOfTheMessagesFindsMistakes(t *testing.T) {
	said := []message{{text: "read slot %q: %w", at: "a.go:1"}, {text: "was lost at %s", part: true, at: "b.go:2"}, {text: "table % is %% full", at: "c.sql"}}
	good := "| `read slot \"<slot>\": <error>` | a | b |\n| `slot \"<slot>\" was lost at <lsn>; <fix>`, `table <table> is % full` | a | b |\n" +
		"<!-- others -->\n| `connection refused` | a | b |\n<!-- /others -->\n"
	for _, c := range []struct{ name, page, want string }{
		{"nothing wrong", good, ""},
		{
			"one is not explained", strings.Replace(good, "lost at", "lost near", 1),
			"b.go:2: not explained: was lost at %s; nothing says any more: slot \"<slot>\" was lost near <lsn>; <fix>",
		},
		{
			"without a placeholder", strings.Replace(good, "<table>", "x", 1),
			"c.sql: not explained: table % is %% full; nothing says any more: table x is % full",
		},
		{"one is there twice", good + "| `read slot \"<slot>\": <error>` | a | b |\n", "explained twice: read slot \"<slot>\": <error>"},
		{"one that nobody says", good + "| `it is gone` | a | b |\n", "nothing says any more: it is gone"},
		{"only in the second column", strings.Replace(good, "| `read", "| x | `read", 1), "a.go:1: not explained: read slot %q: %w"},
	} {
		if got := strings.Join(compareMessages(said, c.page), "; "); got != c.want {
			t.Errorf("%s: found %q, want %q", c.name, got, c.want)
		}
	}
}
