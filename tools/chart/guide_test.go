package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
)

const project = "../.."

// read returns a file of the project.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(project, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// guide is what the commands of docs/guides/kubernetes.md are checked against.
type guide struct {
	values chartutil.Values
	manifests
}

// TestGuideToKubernetesHolds renders the chart with the values of the guide, and looks whether its commands name what is
// there then. There is no cluster to run them.
func TestGuideToKubernetesHolds(t *testing.T) {
	text := read(t, "docs/guides/kubernetes.md")
	var g guide
	var commands []string
	for _, block := range regexp.MustCompile("(?s)\n```(\\w+)\n(.*?)```").FindAllStringSubmatch(text, -1) {
		switch block[1] {
		case "yaml":
			values, err := chartutil.ReadValues([]byte(block[2]))
			if err != nil || g.values != nil {
				t.Fatalf("values, for the first time: %v\n%s", err, block[2])
			}
			g.values = values
		case "sh":
			commands = append(commands, strings.Split(strings.TrimSpace(block[2]), "\n")...)
		case "sql": // TestChartDeliversAMessage
		default:
			t.Errorf("nobody looks at a block of %s", block[1])
		}
	}
	if len(commands) < 9 {
		t.Fatalf("the guide has %d commands", len(commands))
	}
	g.manifests = *decode(t, mustRender(t, g.values))
	for _, command := range commands {
		if wrong := g.check(t, strings.Fields(command)); wrong != "" {
			t.Errorf("%s\n%s", command, wrong)
		}
	}
	for _, wrong := range [][]string{
		strings.Fields("make images"),
		strings.Fields("kubectl --namespace messages logs deployment/pgamqp"),
		strings.Fields("kubectl --namespace messages exec deployment/shop-pgamqp -- pgamqp stat"),
		strings.Fields("kubectl --namespace messages create secret generic shop --from-literal=PGAMQP_DATABASE_URL=x"),
		strings.Fields("helm upgrade shop packaging/chart --namespace messages --values values.yaml --set image.tags=1.1.0"),
		strings.Fields("rm -rf /"),
	} {
		if g.check(t, wrong) == "" {
			t.Errorf("this is taken for good: %q", wrong)
		}
	}
	checkNames(t, text)
}

// check tells what is wrong with a command.
func (g *guide) check(t *testing.T, words []string) string {
	t.Helper()
	rest := func(prefix ...string) []string {
		if len(words) >= len(prefix) && slices.Equal(words[:len(prefix)], prefix) {
			return words[len(prefix):]
		}
		return nil
	}
	image := g.deployment.Spec.Template.Spec.Containers[0].Image
	if target := rest("make"); target != nil {
		if !strings.Contains(read(t, "Makefile"), "\n"+target[0]+": ") {
			return "there is no such target"
		}
		return ""
	}
	if copied := rest("skopeo", "copy"); copied != nil {
		if copied[len(copied)-1] != "docker://"+image {
			return "the values deploy " + image
		}
		return ""
	}
	if secret := rest("kubectl", "--namespace", "messages", "create", "secret", "generic"); secret != nil {
		key, _, _ := strings.Cut(strings.TrimPrefix(secret[1], "--from-literal="), "=")
		for _, c := range append(slices.Clone(g.deployment.Spec.Template.Spec.Containers), g.install.Spec.Template.Spec.Containers...) {
			if slices.ContainsFunc(c.Env, func(v core.EnvVar) bool {
				return v.ValueFrom != nil && v.ValueFrom.SecretKeyRef.Name == secret[0] && v.ValueFrom.SecretKeyRef.Key == key
			}) {
				return ""
			}
		}
		return "no pod uses it"
	}
	if kubectl := rest("kubectl", "--namespace", "messages"); kubectl != nil {
		if target := kubectl[1]; target != "deployment/"+g.deployment.Name && target != "service/"+g.service.Name {
			return "there is no " + target
		}
		switch kubectl[0] {
		case "logs":
			return ""
		case "exec":
			if _, err := os.Stat(filepath.Join(project, "cmd/pgamqp/testdata/help", kubectl[4]+".txt")); err != nil || kubectl[3] != "pgamqp" {
				return "there is no such command"
			}
			return ""
		case "port-forward":
			if !strings.HasSuffix(kubectl[2], ":"+g.service.Spec.Ports[0].Name) {
				return "the Service has no such port"
			}
			return ""
		}
	}
	for _, verb := range []string{"install", "upgrade"} {
		helm := rest("helm", verb, "shop", "packaging/chart", "--namespace", "messages", "--values", "values.yaml")
		if helm == nil {
			continue
		}
		values := g.values.AsMap()
		if len(helm) == 2 && helm[0] == "--set" {
			if err := strvals.ParseInto(helm[1], values); err != nil {
				return err.Error()
			}
		} else if len(helm) > 0 {
			return "unknown arguments"
		}
		if _, err := render(load(t), values); err != nil {
			return err.Error()
		}
		return ""
	}
	return "nobody knows how to check this"
}

// checkNames looks up each name in backquotes that begins with one of the chart's values.
func checkNames(t *testing.T, text string) {
	t.Helper()
	values := chartutil.Values(load(t).Values)
	found := 0
	for _, name := range regexp.MustCompile("`([a-z]\\w*(?:\\.\\w+)*)`").FindAllStringSubmatch(text, -1) {
		parts := strings.Split(name[1], ".")
		at, isValue := values[parts[0]]
		if !isValue {
			continue
		}
		for _, part := range parts[1:] {
			table, _ := at.(map[string]any)
			if at, isValue = table[part]; !isValue {
				t.Errorf("the chart has no value %s", name[1])
				break
			}
		}
		found++
	}
	if found < 5 {
		t.Errorf("the guide names %d values", found)
	}
}
