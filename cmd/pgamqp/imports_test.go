package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pgamqp/pgamqp"

// Outside modules, by the first part of their import paths.
const (
	modPgx        = "github.com/jackc/pgx/v5"
	modPglogrepl  = "github.com/jackc/pglogrepl"
	modAMQP       = "github.com/rabbitmq/amqp091-go"
	modPrometheus = "github.com/prometheus/client_golang"
	modCobra      = "github.com/spf13/cobra"
	modYaml       = "go.yaml.in/yaml/v3"
	modSync       = "golang.org/x/sync"
	modSystemd    = "github.com/coreos/go-systemd/v22"
	modModel      = "github.com/prometheus/client_model"
	modText       = "github.com/prometheus/common"
	modWeb        = "github.com/prometheus/exporter-toolkit"
	modOTel       = "go.opentelemetry.io"
)

// arrows says what each package may import: packages of ours and modules of others. The standard library is free,
// but for what is named as barred. ARCHITECTURE.md gives the reasons; a new arrow needs one.
func arrows() map[string]struct{ ours, outside, barred []string } {
	type row = struct{ ours, outside, barred []string }
	noIO := []string{"log", "log/slog", "net", "os", "io/fs"}
	return map[string]row{
		"decoder":             {outside: []string{modPglogrepl}, barred: noIO},
		"metrics":             {outside: []string{modPrometheus}, barred: noIO},
		"sql":                 {},
		"internal/backoff":    {barred: noIO},
		"internal/config":     {outside: []string{modYaml}},
		"internal/secrets":    {},
		"internal/catalog":    {ours: []string{"sql", "internal/backoff"}, outside: []string{modPgx, modPglogrepl}},
		"replication":         {ours: []string{"decoder", "metrics", "internal/backoff"}, outside: []string{modPgx, modPglogrepl}},
		"publisher":           {ours: []string{"decoder", "metrics", "internal/backoff"}, outside: []string{modAMQP, modPglogrepl}},
		"internal/isolation":  {ours: []string{"decoder", "internal/backoff"}, outside: []string{modPglogrepl}},
		"internal/rows":       {ours: []string{"decoder"}, outside: []string{modPglogrepl}, barred: noIO},
		"internal/snapshot":   {ours: []string{"decoder", "metrics", "internal/backoff", "internal/catalog"}, outside: []string{modPgx}},
		"internal/status":     {outside: []string{modPrometheus, modModel, modText}},
		"internal/page":       {ours: []string{"internal/status"}, outside: []string{modPrometheus}},
		"internal/tail":       {ours: []string{"decoder", "replication"}, outside: []string{modPgx, modPglogrepl}},
		"internal/tracing":    {ours: []string{"publisher", "internal/backoff"}, outside: []string{modAMQP, modOTel}},
		"internal/fakenet":    {},
		"internal/fakeamqp":   {ours: []string{"internal/fakenet"}, outside: []string{modAMQP}},
		"internal/fakewal":    {ours: []string{"internal/fakenet"}, outside: []string{modPgx, modPglogrepl}},
		"internal/snippet":    {},
		"internal/licenses":   {},
		"internal/testserver": {outside: []string{modPgx, modAMQP}},
		"internal/bench": {
			ours:    []string{"decoder", "metrics", "replication", "internal/testserver"},
			outside: []string{modPgx, modPglogrepl, modAMQP, modPrometheus, modSync},
		},
		"internal/demo": {ours: []string{"internal/testserver"}, outside: []string{modPgx, modAMQP}},
		"cmd/pgamqp": {
			ours: []string{
				"decoder", "metrics", "sql", "replication", "publisher",
				"internal/backoff", "internal/config", "internal/catalog", "internal/isolation", "internal/rows", "internal/secrets", "internal/snapshot", "internal/status", "internal/page", "internal/tail", "internal/tracing", "internal/demo", "internal/bench",
			},
			outside: []string{modPgx, modPglogrepl, modAMQP, modPrometheus, modCobra, modSystemd, modWeb, modSync},
		},
		// What the guide to the outbox shows: programs of users.
		"docs/guides/outbox/placeorder": {outside: []string{modPgx}},
		"docs/guides/outbox/shiporders": {outside: []string{modPgx, modAMQP}},

		"integration": {ours: []string{"internal/testserver", "internal/snippet"}, outside: []string{modPgx, modPglogrepl, modAMQP}},
	}
}

// listedPackage is what `go list -json` says of a package.
type listedPackage struct {
	ImportPath, Doc                             string
	GoFiles, Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	list := exec.Command("go", "list", "-e", "-find", "-json=ImportPath,Doc,GoFiles,Imports,TestImports,XTestImports", "./...")
	list.Dir = "../.."
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// ourName returns the path of an imported package inside the module, false for one from outside.
func ourName(importPath string) (string, bool) {
	name, ours := strings.CutPrefix(importPath, module+"/")
	return name, ours
}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func TestPackagesImportOnlyWhatTheArrowsAllow(t *testing.T) {
	allowed := arrows()
	for _, p := range listPackages(t) {
		name, _ := ourName(p.ImportPath)
		rule, known := allowed[name]
		if !known {
			t.Errorf("%s is a new package: say in this test what it may import, and why in ARCHITECTURE.md", name)
			continue
		}
		for _, imported := range p.Imports {
			target, ours := ourName(imported)
			ok := false
			switch {
			case ours:
				ok = slices.Contains(rule.ours, target)
			case standard(imported):
				ok = !slices.Contains(rule.barred, imported)
			default:
				ok = slices.ContainsFunc(rule.outside, func(m string) bool {
					return imported == m || strings.HasPrefix(imported, m+"/")
				})
			}
			if !ok {
				t.Errorf("%s must not import %s", name, imported)
			}
		}
	}
}

func TestTestsDoNotJoinWhatTheArrowsKeepApart(t *testing.T) {
	apart := map[string][]string{
		"replication": {"publisher"},
		"publisher":   {"replication", "internal/catalog"},
		"integration": {"replication", "publisher", "decoder", "metrics", "internal/catalog", "internal/config"},
	}
	for _, p := range listPackages(t) {
		name, _ := ourName(p.ImportPath)
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if target, ours := ourName(imported); ours && slices.Contains(apart[name], target) {
				t.Errorf("the tests of %s must not import %s", name, target)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no comment: write what it owns, promises and must not do", path.Base(p.ImportPath))
		}
	}
}
