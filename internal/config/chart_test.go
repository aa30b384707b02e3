package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/pgamqp/pgamqp/internal/config"
)

// A setting is a value of the Helm chart, unless the chart has to choose it.
func TestSettingsOfTheChartAreOurs(t *testing.T) {
	content, err := os.ReadFile("../../packaging/chart/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Config struct {
				Properties map[string]any `json:"properties"`
			} `json:"config"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, o := range config.Options() {
		if !slices.Contains([]string{"database_url", "listen", "shutdown_timeout", "daemon_url", "web_config"}, o.Name) {
			want = append(want, o.Name)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(schema.Properties.Config.Properties))); diff != "" {
		t.Errorf("values.schema.json has other settings (-ours +its):\n%s", diff)
	}
}

// The golden manifests of the chart hold files that we read.
func TestFilesOfTheChartAreRead(t *testing.T) {
	manifests, err := filepath.Glob("../../tools/chart/testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var slots []string
	for _, manifest := range manifests {
		content, err := os.ReadFile(manifest)
		if err != nil {
			t.Fatal(err)
		}
		for documents := yaml.NewDecoder(bytes.NewReader(content)); ; {
			var object struct {
				Kind string
				Data map[string]string
			}
			if err := documents.Decode(&object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", manifest, err)
			}
			if object.Kind != "ConfigMap" {
				continue
			}
			file := filepath.Join(t.TempDir(), "pgamqp.yaml")
			if err := os.WriteFile(file, []byte(object.Data["pgamqp.yaml"]), 0o600); err != nil {
				t.Fatal(err)
			}
			loaded, err := config.Load(config.Input{File: file})
			if err != nil {
				t.Errorf("%s: %v", manifest, err)
			}
			slots = append(slots, loaded.Slot)
		}
	}
	if diff := cmp.Diff([]string{"shop", "pgamqp"}, slots); diff != "" {
		t.Errorf("slots of all files:\n%s", diff)
	}
}
