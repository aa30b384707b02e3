package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// message is a text of the program that a user can meet, with verbs where something is filled in.
type message struct {
	text string
	part bool   // of a longer one: something stands in front of it or behind
	at   string // file and line
}

// withoutMessages says of which folders docs/troubleshooting.md leaves out all texts, and why.
func withoutMessages() map[string]string {
	return map[string]string{
		"internal/bench":          "measures private servers that it starts itself; its errors are for who changes pgamqp",
		"internal/demo":           "shows private servers that it starts itself, and says in its output what is wrong",
		"internal/testserver":     "starts the servers of tests, demo and bench",
		"internal/fakeamqp":       "stands in for a server in tests",
		"internal/fakenet":        "stands in for a network in tests",
		"internal/fakewal":        "stands in for a server in tests",
		"integration":             "tests",
		"tools":                   "of developers, a module of its own",
		"docs":                    "programs that the guides show",
		"internal/snippet":        "reads documents in tests",
		"internal/licenses":       "makes a page and a file for packages; for who changes pgamqp",
		"cmd/pgamqp/bench_cmd.go": "as internal/bench",
		"cmd/pgamqp/demo_cmd.go":  "as internal/demo",
	}
}

// teller is a function that is given the text of a message.
type teller struct {
	of     string // what stands in front of the name: a package, or a receiver if it matters
	text   int    // which argument
	format bool
	part   bool
}

// tellers are the functions through which messages come into being, by name. Not among them is decoder's frameError:
// "decode frame" says it all to an operator, and the rest to who mends it.
func tellers() map[string][]teller {
	return map[string][]teller{
		"Errorf": {{of: "fmt", format: true}}, "New": {{of: "errors"}}, "Error": {{}, {of: "http", text: 1}}, "Warn": {{}},
		"add": {{}}, "addAs": {{text: 1}}, "Add": {{text: 2}}, "kept": {{format: true}}, // catalog: problems, findings, what stays
		"bad": {{format: true, part: true}}, "refuse": {{part: true}}, // of a setting, of a slot
		"envelopeError": {{format: true, part: true}}, "invalid": {{text: 1, format: true}}, // of a message
	}
}

// textFields are fields of structures that a message, or a part of one, is written into.
func textFields() []string { return []string{"Problem", "What", "text"} }

// reader collects the messages of a file.
type reader struct {
	files    *token.FileSet
	assigned map[string][]message // in the function that is read: texts by variable
	found    []message
}

// text returns what an expression says as far as the source tells; the rest is verbs. False if it tells nothing. A % is
// one of a verb only in a format.
func (r *reader) text(e ast.Expr, format bool) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if !format {
			s = strings.ReplaceAll(s, "%", "%%")
		}
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, known := r.text(e.X, format)
		right, alsoKnown := r.text(e.Y, format)
		if !known {
			left = "%s"
		}
		if !alsoKnown {
			right = "%s"
		}
		return left + right, e.Op == token.ADD && (known || alsoKnown)
	case *ast.CallExpr:
		if _, name := called(e); name == "Sprintf" {
			return r.text(e.Args[0], true)
		}
	}
	return "", false
}

// called splits what is called into what stands in front of the last point, if that is a name, and the rest.
func called(e *ast.CallExpr) (of, name string) {
	switch f := e.Fun.(type) {
	case *ast.Ident:
		return "", f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			of = x.Name
		}
		return of, f.Sel.Name
	}
	return "", ""
}

// take notes an expression as a message, or the texts of a variable.
func (r *reader) take(e ast.Expr, front string, format, part bool) {
	var texts []message
	if name, ok := e.(*ast.Ident); ok {
		texts = r.assigned[name.Name]
	} else if s, ok := r.text(e, format); ok {
		texts = []message{{text: s, part: part}}
	}
	for _, m := range texts {
		m.text, m.at = front+strings.Join(strings.Fields(m.text), " "), r.files.Position(e.Pos()).String()
		if strings.Trim(verbs().ReplaceAllString(m.text, ""), " :;,.()-") != "" {
			r.found = append(r.found, m)
		}
	}
}

// visit reads a node of the source.
func (r *reader) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		r.assigned = make(map[string][]message)
		if n.Name.Name == "Error" && n.Recv != nil && n.Body != nil {
			for _, s := range n.Body.List {
				if s, ok := s.(*ast.ReturnStmt); ok {
					r.take(s.Results[0], "", false, false)
				}
			}
		}
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if i >= len(n.Rhs) {
				break
			}
			switch left := left.(type) {
			case *ast.Ident:
				if s, ok := r.text(n.Rhs[i], false); ok {
					r.assigned[left.Name] = append(r.assigned[left.Name], message{text: s, part: n.Tok == token.ADD_ASSIGN})
				}
			case *ast.SelectorExpr:
				if slices.Contains(textFields(), left.Sel.Name) {
					r.take(n.Rhs[i], "", false, true)
				}
			}
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && slices.Contains(textFields(), key.Name) {
			r.take(n.Value, "", false, key.Name == "Problem")
		}
	case *ast.CallExpr:
		r.call(n)
	}
	return true
}

func (r *reader) call(n *ast.CallExpr) {
	of, name := called(n)
	for _, t := range tellers()[name] {
		if t.of != "" && t.of != of || t.of == "" && of == "http" || len(n.Args) <= t.text {
			continue
		}
		front := ""
		switch name {
		case "Add":
			if strings.HasSuffix(source(n.Args[0]), "LevelOK") {
				continue
			}
		case "invalid":
			field, ok := r.text(n.Args[0], false)
			if !ok {
				field = "%s"
			}
			front = field + " "
		}
		r.take(n.Args[t.text], front, t.format, t.part)
	}
}

// source names an expression that is a name.
func source(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// verbs matches what is filled in: verbs of fmt, and the % of RAISE and format in SQL.
func verbs() *regexp.Regexp { return regexp.MustCompile(`%(?:[-.*0-9]*[a-zA-Z]|)`) }

// messagesOfGo reads the source of the daemon and the commands.
func messagesOfGo(t *testing.T) []message {
	t.Helper()
	root := filepath.Join("..", "..")
	var found []message
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if _, without := withoutMessages()[name]; without || err != nil {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		r := &reader{files: token.NewFileSet(), assigned: make(map[string][]message)}
		file, err := parser.ParseFile(r.files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, r.visit)
		found = append(found, r.found...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestReaderFindsTheMessagesOfASource shows what counts as a message.
func TestReaderFindsTheMessagesOfASource(t *testing.T) {
	const file = `package x

func (e *Lost) Error() string { return "lost: " + e.why }

func f() error {
	log.Warn("100% full", slog.String("a", "no message"))
	what := "first"
	what += ", second"
	found.add(what, "no message")
	d.Add(catalog.LevelOK, "area", "no message")
	d.Add(level, "area", fmt.Sprintf("%d left", n)+" of all")
	e.Problem = "broken"
	return &Slot{Problem: "gone", Fix: "no message", Err: fmt.Errorf("read\n%w", errors.New("ended"))}
}`
	r := &reader{files: token.NewFileSet(), assigned: make(map[string][]message)}
	parsed, err := parser.ParseFile(r.files, "x.go", file, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, r.visit)
	var got []string
	for _, m := range r.found {
		got = append(got, fmt.Sprintf("%s %t", m.text, m.part))
	}
	want := []string{
		"lost: %s false", "100%% full false", "first false", ", second true", "%d left of all false", "broken true", "gone true", "read %w false", "ended false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant  %q", got, want)
	}
}
