package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/snippet"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// tool runs a program on files of a folder and returns what it says.
func tool(t *testing.T, folder, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v; make setup installs it", err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func writeTo(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// man warns of nothing in the pages, and would.
func TestManualPagesAreWellFormed(t *testing.T) {
	folder := t.TempDir()
	warnings := func(page string) string {
		t.Helper()
		out, err := tool(t, folder, "man", "--warnings", "--encoding=UTF-8", "--troff-device=utf8", "--ditroff", "--local-file", page)
		if err != nil {
			t.Fatalf("%s: %v\n%s", page, err, out)
		}
		var all []string
		for line := range strings.Lines(out) { // the rest is the page, for a device
			if strings.Contains(line, "warning:") {
				all = append(all, line)
			}
		}
		return strings.Join(all, "")
	}
	writeTo(t, folder, "broken.1", ".TH BROKEN 1\n.SH NAME\nbroken\n.NOSUCH\n")
	if warnings("broken.1") == "" {
		t.Error("man does not warn of an unknown request")
	}
	if code, out, errs := pgamqp(t, "man", "--dir", folder); code != exitOK {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	pages, err := filepath.Glob(filepath.Join(folder, "pgamqp*.1"))
	if err != nil || len(pages) < 15 {
		t.Fatalf("only %d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		if w := warnings(filepath.Base(page)); w != "" {
			t.Errorf("%s: %s", page, w)
		}
	}
}

// The shell that the tests need can read its script; those for others are not looked at.
func TestCompletionOfBashIsAScript(t *testing.T) {
	folder := t.TempDir()
	code, script, errs := pgamqp(t, "completion", "bash")
	if code != exitOK || !strings.Contains(script, "__start_pgamqp") {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	writeTo(t, folder, "pgamqp", script)
	if out, err := tool(t, folder, "bash", "-n", "pgamqp"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The files that docs/operations.md shows are taken by those that read them: Prometheus, and our own HTTP server.
func TestYAMLOfOperationsIsTaken(t *testing.T) {
	blocks, err := snippet.Read(filepath.Join("..", ".."), "docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := testserver.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	writeTo(t, folder, "web.pem", string(certificate.Certificate))
	writeTo(t, folder, "web.key", string(certificate.Key))
	writeTo(t, folder, "pgamqp.yaml", document(t, "metrics", "alerts", "pgamqp.yaml"))
	read := 0
	for _, b := range blocks {
		if b.Language != "yaml" {
			continue
		}
		read++
		switch {
		case strings.Contains(b.Text, "scrape_configs:"):
			writeTo(t, folder, "prometheus.yml", b.Text)
			if out, err := tool(t, folder, "promtool", "check", "config", "prometheus.yml"); err != nil || !strings.Contains(out, "rules found") {
				t.Errorf("%s: %v\n%s", b, err, out)
			}
		case strings.Contains(b.Text, "tls_server_config:"):
			const shown = "$2y$10$..."
			if !strings.Contains(b.Text, shown) {
				t.Errorf("%s shows no %s", b, shown)
			}
			hash := shown[:len(shown)-3] + strings.Repeat("a", 53)
			writeTo(t, folder, "web.yaml", strings.Replace(b.Text, shown, hash, 1))
			if err := checkWebConfig(filepath.Join(folder, "web.yaml")); err != nil {
				t.Errorf("%s: %v", b, err)
			}
		default:
			t.Errorf("%s: nobody knows who reads it", b)
		}
	}
	if read < 2 {
		t.Errorf("only %d blocks of YAML", read)
	}
}
