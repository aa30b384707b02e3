package config

import (
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// WriteYAML writes the effective settings as a file that could be loaded again, with the origin of each as a comment.
// Secrets are masked.
func (l Loaded) WriteYAML(w io.Writer) error {
	lines := make([]string, 0, len(options()))
	width := 0
	for _, o := range options() {
		line, err := yamlLine(o.name, o.show(&l.Config))
		if err != nil {
			return err
		}
		lines = append(lines, line)
		width = max(width, len(line))
	}
	for i, o := range options() {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", width, lines[i], l.Origin(o.name)); err != nil {
			return err
		}
	}
	return nil
}

// Setting is one of the effective settings, as it is shown: a secret is masked.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

// Effective returns all settings with their origins, in the order in which they are shown.
func (l Loaded) Effective() []Setting {
	all := make([]Setting, 0, len(options()))
	for _, o := range options() {
		all = append(all, Setting{o.name, o.show(&l.Config), l.Origin(o.name)})
	}
	return all
}

// yamlLine returns "key: value" with quotes where YAML needs them.
func yamlLine(name, text string) (string, error) {
	value := yaml.Node{Kind: yaml.ScalarNode, Value: text, Tag: "!!str"}
	switch {
	case text != "" && strings.Trim(text, "0123456789") == "":
		value.Tag = "!!int"
	case strings.ContainsAny(text, "\r\n"):
		value.Style = yaml.DoubleQuotedStyle // keeps it in one line, before the comment
	}
	out, err := yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: name}, &value,
	}})
	if err != nil {
		return "", fmt.Errorf("show %s: %w", name, err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
