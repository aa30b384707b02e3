// Package secrets reads what columns of amqp.broker refer to instead of holding it: a file in
// one folder, or a variable of the environment with one prefix. Whoever may write the table can
// have nothing else read: a password goes to a host that the same row names.
package secrets

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// EnvPrefix begins the names of variables that can be referred to.
const EnvPrefix = "PGAMQP_SECRET_"

// largest is how long a secret may be, in bytes; a chain of certificates has a few thousand.
const largest = 1 << 20

// Store reads secrets. Its methods may be called from any goroutine.
type Store struct {
	dir    string
	lookup func(string) (string, bool)

	mu    sync.Mutex
	last  map[string]string // what a reference was read as last
	asked map[string]bool   // since the last Sweep
}

// New returns a Store for the files of a folder, which may be empty: then there are none.
func New(dir string) *Store {
	return &Store{dir: dir, lookup: os.LookupEnv, last: make(map[string]string), asked: make(map[string]bool)}
}

// StaleError says that a reference cannot be read any more, and that what it was last is used.
type StaleError struct{ Err error }

func (e *StaleError) Error() string { return e.Err.Error() + "; what it was before is used" }

// Unwrap returns the error of the last attempt.
func (e *StaleError) Unwrap() error { return e.Err }

// Resolve returns what a column means: the content of a file for file:NAME, of a variable for
// env:NAME, REST for literal:REST, and itself otherwise. It reads anew each time, so that a
// secret can be replaced; while it cannot be read, as in the moment of that, it returns
// what it was, and a [*StaleError].
func (s *Store) Resolve(value string) (string, error) {
	kind, name, _ := strings.Cut(value, ":")
	var read func(string) (string, error)
	switch kind {
	case "file":
		read = s.file
	case "env":
		read = s.variable
	case "literal":
		return name, nil
	default:
		return value, nil
	}
	content, err := read(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[value] = true
	if err == nil {
		s.last[value] = content
		return content, nil
	}
	err = fmt.Errorf("read %s: %w", value, err)
	if last, known := s.last[value]; known {
		return last, &StaleError{err}
	}
	return "", err
}

// Sweep forgets what was not asked for since the last one.
func (s *Store) Sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for value := range s.last {
		if !s.asked[value] {
			delete(s.last, value)
		}
	}
	clear(s.asked)
}

func (s *Store) file(name string) (string, error) {
	if s.dir == "" {
		return "", errors.New("no folder for such files is set; set secrets_dir")
	}
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("write the name of a file in secrets_dir (%s), not a path", s.dir)
	}
	root, err := os.OpenRoot(s.dir) // symbolic links do not lead out of it
	if err != nil {
		return "", fmt.Errorf("secrets_dir: %w", err)
	}
	defer func() { _ = root.Close() }()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for a writer
	if err != nil {
		return "", fmt.Errorf("in secrets_dir (%s): %w", s.dir, err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("in secrets_dir (%s): it is no file", s.dir)
	}
	content, err := io.ReadAll(io.LimitReader(f, largest+1))
	switch {
	case err != nil:
		return "", err
	case len(content) > largest:
		return "", fmt.Errorf("it is longer than %d bytes", largest)
	case len(content) == 0:
		return "", errors.New("it is empty") // as while it is written
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}

func (s *Store) variable(name string) (string, error) {
	if !strings.HasPrefix(name, EnvPrefix) {
		return "", fmt.Errorf("only variables that begin with %s can be referred to", EnvPrefix)
	}
	content, ok := s.lookup(name)
	if !ok {
		return "", errors.New("the daemon has no such variable")
	}
	return content, nil
}
