package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

var update = flag.Bool("update", false, "rewrite the files in testdata, and the alerts in the chart")

const (
	chartFolder = "../../packaging/chart"
	alerts      = "../../metrics/alerts/pgamqp.yaml"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cases are the values in testdata: NAME.values.yaml, whose manifests are NAME.yaml.
func cases(t *testing.T) map[string]chartutil.Values {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	found := make(map[string]chartutil.Values)
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(filepath.Base(file), ".values.yaml")] = values
	}
	return found
}

// render does what `helm template shop` does, but for the notes.
func render(c *chart.Chart, values chartutil.Values) (string, error) {
	release := chartutil.ReleaseOptions{Name: "shop", Namespace: "messages", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	var names []string
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		out.WriteString("---\n# Source: " + name + "\n" + strings.TrimSpace(files[name]) + "\n")
	}
	return out.String(), nil
}

func mustRender(t *testing.T, values chartutil.Values) string {
	t.Helper()
	text, err := render(load(t), values)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// same compares a file with what it should hold, or rewrites it.
func same(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	haveLines, wantLines := strings.Split(string(have), "\n"), strings.Split(want, "\n")
	for i := range max(len(haveLines), len(wantLines)) {
		h, w := at(haveLines, i), at(wantLines, i)
		if h != w {
			t.Fatalf("%s differs from line %d on (-update rewrites it):\n- %s\n+ %s", file, i+1, h, w)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(the end)"
}

func TestManifestsAreTheGoldenOnes(t *testing.T) {
	for name, values := range cases(t) {
		same(t, filepath.Join("testdata", name+".yaml"), mustRender(t, values))
	}
}

func TestChartHasTheAlertsOfTheProject(t *testing.T) {
	want, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(chartFolder, "files", "alerts.yaml"), string(want))
}

func TestLinterOfHelmIsContent(t *testing.T) {
	for name, values := range cases(t) {
		for _, m := range lint.All(chartFolder, values, "messages", true).Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%s: %s", name, m)
			}
		}
	}
	// It also has to be content with the defaults, where two values are missing that only a user knows.
	for _, m := range lint.All(chartFolder, nil, "messages", true).Messages {
		if m.Severity >= support.WarningSev {
			t.Errorf("defaults: %s", m)
		}
	}
}

func TestNotesNameWhatIsThere(t *testing.T) {
	for name, values := range cases(t) {
		c := load(t)
		release := chartutil.ReleaseOptions{Name: "shop", Namespace: "messages", Revision: 1, IsInstall: true}
		all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
		if err != nil {
			t.Fatal(err)
		}
		files, err := engine.Render(c, all)
		if err != nil {
			t.Fatal(err)
		}
		notes := files["pgamqp/templates/NOTES.txt"]
		for _, want := range []string{
			"exec deployment/" + decode(t, mustRender(t, values)).deployment.Name + " -- pgamqp status",
			"service/" + decode(t, mustRender(t, values)).service.Name + " 9465:http",
		} {
			if !strings.Contains(notes, want) {
				t.Errorf("%s: the notes do not say %q:\n%s", name, want, notes)
			}
		}
	}
}

func TestMistakesInValuesAreRefused(t *testing.T) {
	c := load(t)
	good := func() map[string]any {
		return map[string]any{"image.repository": "r.example.com:5000/pgamqp", "database.existingSecret": "pgamqp"}
	}
	// set makes nested values of paths.
	set := func(paths map[string]any) chartutil.Values {
		values := map[string]any{}
		for path, value := range paths {
			at := values
			parts := strings.Split(path, ".")
			for _, part := range parts[:len(parts)-1] {
				if at[part] == nil {
					at[part] = map[string]any{}
				}
				at = at[part].(map[string]any)
			}
			at[parts[len(parts)-1]] = value
		}
		return values
	}
	if _, err := render(c, set(good())); err != nil {
		t.Fatalf("good values: %v", err)
	}
	for _, mistake := range []struct {
		path  string
		value any
		says  string
	}{
		{"image.repository", "", "image.repository"},
		{"image.repository", "r.example.com/pgamqp:1.0.0", "image/repository"},
		{"database.existingSecret", "", "database.existingSecret"},
		{"database.url", "postgres://app:secret@db/shop", "database"},
		{"replica", 2, "replica"},
		{"replicas", -1, "replicas"},
		{"replicas", "two", "replicas"},
		{"config.listen", "127.0.0.1:9465", "listen"},
		{"config.shutdown_timeout", "60s", "shutdown_timeout"},
		{"config.database_url", "postgres://db/shop", "database_url"},
		{"config.slot", "Not-A-Slot", "slot"},
		{"config.window_bytes", "huge", "window_bytes"},
		{"config.log_level", "loud", "log_level"},
		{"shutdownTimeoutSeconds", "25s", "shutdownTimeoutSeconds"},
		{"serviceMonitor.interval", "often", "interval"},
	} {
		values := good()
		values[mistake.path] = mistake.value
		if _, err := render(c, set(values)); err == nil || !strings.Contains(err.Error(), mistake.says) {
			t.Errorf("%s = %v: %v", mistake.path, mistake.value, err)
		}
	}
}

func TestPackageDeploysTheImageOfItsVersion(t *testing.T) {
	folder := t.TempDir()
	file, err := pack("0.0.0-dev+abc.1", chartFolder, folder)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := loader.LoadArchive(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	text, err := render(c, cases(t)["minimal"])
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, text).deployment.Spec.Template.Spec.Containers[0].Image; got != "registry.example.com/pgamqp:0.0.0-dev-abc.1" {
		t.Errorf("it deploys %s", got)
	}
	if _, err := pack("yesterday", chartFolder, folder); err == nil {
		t.Error("a version that is none is taken")
	}
}
