package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

const (
	envPrefix = "PGAMQP_"
	envFile   = "PGAMQP_CONFIG"
	// envTestPrefix is left to the project's own tests.
	envTestPrefix = "PGAMQP_TEST_"
	// envSecretPrefix begins what rows of amqp.broker refer to, see package secrets.
	envSecretPrefix = "PGAMQP_SECRET_"
)

// Input is where settings come from.
type Input struct {
	File    string            // path of the YAML file; "" means PGAMQP_CONFIG, and without that no file
	Environ []string          // as os.Environ returns it
	Flags   map[string]string // the flags that were given, by name of the flag
}

// Loaded is a configuration that knows where each setting came from.
type Loaded struct {
	Config
	origins map[string]string // by option; absent for defaults
}

// Load reads the file, the environment and the flags, in rising precedence, and validates the result. Its error names
// every mistake in all of them, one on each line.
func Load(in Input) (Loaded, error) {
	l := Loaded{Config: Default(), origins: make(map[string]string)}
	env, errs := readEnviron(in.Environ)
	if in.File == "" {
		in.File = env[envFile]
	}
	delete(env, envFile)

	if in.File != "" {
		settings, mistakes := readFile(in.File)
		errs = append(errs, mistakes...)
		for _, s := range settings {
			errs = append(errs, l.set(s.name, s.text, fmt.Sprintf("file %s:%d", in.File, s.line)))
		}
	}
	for _, o := range options() {
		if text, ok := env[o.env()]; ok {
			errs = append(errs, l.set(o.name, text, "environment "+o.env()))
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(in.Flags)) {
		errs = append(errs, l.set(strings.ReplaceAll(flag, "-", "_"), in.Flags[flag], "flag --"+flag))
	}
	for _, m := range l.mistakes() {
		errs = append(errs, fmt.Errorf("%s: %w (%s)", m.name, m.err, l.Origin(m.name)))
	}
	return l, errors.Join(errs...)
}

// set takes one setting over from one source. After a mistake the old value stays, so that the rest can be checked.
func (l *Loaded) set(name, text, origin string) error {
	o, ok := findOption(name)
	if !ok {
		return fmt.Errorf("%s: there is no such setting (%s)", name, origin)
	}
	if err := o.parse(&l.Config, strings.TrimSpace(text)); err != nil {
		return fmt.Errorf("%s: %w (%s)", name, err, origin)
	}
	l.origins[name] = origin
	return nil
}

// OriginDefault is the origin of a setting that nobody has given.
const OriginDefault = "default"

// Origin says where a setting came from: [OriginDefault], "file PATH:LINE", "environment NAME" or "flag --NAME".
func (l Loaded) Origin(name string) string {
	if origin, ok := l.origins[name]; ok {
		return origin
	}
	return OriginDefault
}

// readEnviron picks our variables. One that is empty counts as not set, because a compose file or a unit cannot leave
// it out conditionally. One that is not known is a mistake: a misspelled setting must not be ignored.
func readEnviron(environ []string) (map[string]string, []error) {
	known := []string{envFile}
	for _, o := range options() {
		known = append(known, o.env())
	}
	found := make(map[string]string)
	var errs []error
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, envTestPrefix) || strings.HasPrefix(name, envSecretPrefix) {
			continue
		}
		switch {
		case !slices.Contains(known, name):
			errs = append(errs, fmt.Errorf("%s: there is no such setting%s (environment)", name, didYouMean(name, known)))
		case text != "":
			found[name] = text
		}
	}
	return found, errs
}

// didYouMean finds the known name that is closest to a misspelled one, and says nothing if none is close.
func didYouMean(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return "; `pgamqp config` lists all"
	}
	return "; did you mean " + best + "?"
}

// editDistance counts the letters to insert, remove or exchange to make b out of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

// fileError makes an error of os say what was tried, without repeating the operation's name.
func fileError(path string, err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	return fmt.Errorf("read configuration file %s: %w", path, err)
}
