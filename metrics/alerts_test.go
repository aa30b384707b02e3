package metrics_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// promtool runs the checker of Prometheus and returns what it says, and whether it is content.
func promtool(t *testing.T, args ...string) (output string, content bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if _, ran := err.(*exec.ExitError); err != nil && !ran { //nolint:errorlint // as Output returns it
		t.Fatalf("promtool: %v; make setup installs it", err)
	}
	return string(out), err == nil
}

func readText(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts/pgamqp.yaml"}, {"test", "rules", "alerts/pgamqp_test.yaml"}} {
		if out, content := promtool(t, args...); !content {
			t.Errorf("promtool %q:\n%s", args, out)
		}
	}
}

var (
	alertRule  = regexp.MustCompile(`(?ms)^      - alert: (\w+)\n.*?(?:\z|\n\n)`)
	expression = regexp.MustCompile(`(?m)^        expr: (?:\|\n(?:          .*\n)+|.*\n)`)
	ownMetric  = regexp.MustCompile(`\bpgamqp_[a-z_]+`)
)

// testsOf returns the tests of one alert, with what stands in front of all tests.
func testsOf(t *testing.T, alert, tests string) string {
	t.Helper()
	parts := strings.Split(tests, "  - name: ")
	mine := parts[0]
	for _, part := range parts[1:] {
		if name, _, _ := strings.Cut(part, "\n"); name == alert {
			mine += "  - name: " + part
		}
	}
	if mine == parts[0] {
		t.Fatalf("%s has no test", alert)
	}
	return mine
}

// TestEveryAlertHasATest breaks each alert in two ways: it never fires; it fires without waiting.
func TestEveryAlertHasATest(t *testing.T) {
	rules, tests := readText(t, "alerts", "pgamqp.yaml"), readText(t, "alerts", "pgamqp_test.yaml")
	found := alertRule.FindAllStringSubmatch(rules, -1)
	if len(found) < 20 {
		t.Fatalf("%d alerts", len(found))
	}
	for _, rule := range found {
		text, name := rule[0], rule[1]
		mutants := map[string]string{"never fires": expression.ReplaceAllLiteralString(text, "        expr: vector(0) > 1\n")}
		if strings.Contains(text, "\n        for: ") {
			mutants["does not wait"] = regexp.MustCompile(`(?m)^        for: .*\n`).ReplaceAllLiteralString(text, "")
		}
		for how, mutant := range mutants {
			t.Run(fmt.Sprintf("%s %s", name, how), func(t *testing.T) {
				t.Parallel()
				if mutant == text {
					t.Fatal("the rule was not changed")
				}
				folder := t.TempDir()
				for file, content := range map[string]string{"pgamqp.yaml": strings.Replace(rules, text, mutant, 1), "pgamqp_test.yaml": testsOf(t, name, tests)} {
					if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if out, content := promtool(t, "test", "rules", filepath.Join(folder, "pgamqp_test.yaml")); content || !strings.Contains(out, "FAILED") {
					t.Errorf("the tests do not notice it:\n%s", out)
				}
			})
		}
	}
}

// knownMetrics returns the names of all metrics that there are, with those of the series of histograms.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^(pgamqp_\w+) (\w+)$`).FindAllStringSubmatch(readText(t, "testdata", "names.golden"), -1) {
		known[line[1]] = true
		if line[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[line[1]+suffix] = true
			}
		}
	}
	return known
}

func TestAlertsAskForMetricsThatAreThere(t *testing.T) {
	known := knownMetrics(t)
	asked := 0
	for _, e := range expression.FindAllString(readText(t, "alerts", "pgamqp.yaml"), -1) {
		for _, name := range ownMetric.FindAllString(e, -1) {
			if asked++; !known[name] {
				t.Errorf("no metric is called %s", name)
			}
		}
	}
	if asked < 20 {
		t.Errorf("%d names of metrics were found", asked)
	}
}
