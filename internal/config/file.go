package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setting is one line of the file. Its value is text, as it is in the environment and in flags, so that a value means
// the same wherever it is written.
type setting struct {
	name, text string
	line       int
}

// readFile returns the settings of a YAML file, which is one flat mapping, and all mistakes in its form.
func readFile(path string) ([]setting, []error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, []error{fileError(path, err)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil // an empty file sets nothing
	} else if err != nil {
		return nil, []error{fileError(path, err)}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, []error{fileError(path, errors.New("more than one document: remove the line with ---"))}
	}
	return readMapping(path, document.Content[0])
}

func readMapping(path string, root *yaml.Node) ([]setting, []error) {
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil // nothing but comments after a ---
	}
	if root.Kind != yaml.MappingNode {
		return nil, []error{fileError(path, fmt.Errorf("line %d: write one `key: value` on each line", root.Line))}
	}
	known := make([]string, 0, len(options()))
	for _, o := range options() {
		known = append(known, o.name)
	}
	var settings []setting
	var errs []error
	seen := make(map[string]int)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s (file %s:%d)", key.Value, fmt.Sprintf(format, args...), path, key.Line))
		}
		if _, ok := findOption(key.Value); !ok {
			bad("there is no such setting%s", didYouMean(key.Value, known))
			continue
		}
		if line, twice := seen[key.Value]; twice {
			bad("it is set in line %d already: remove one of the two", line)
			continue
		}
		seen[key.Value] = key.Line
		text, err := readValue(node)
		if err != nil {
			bad("%v", err)
			continue
		}
		settings = append(settings, setting{key.Value, text, key.Line})
	}
	return settings, errs
}

// readValue returns a scalar as it is written, and a list with commas between its scalars.
func readValue(node *yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.AliasNode:
		return readValue(node.Alias)
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "", errors.New("it has no value: write one, or remove the line")
		}
		return node.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, 0, len(node.Content))
		for _, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return "", errors.New("a list may contain plain values only")
			}
			parts = append(parts, n.Value)
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("it takes one value, or a list of values")
	}
}
