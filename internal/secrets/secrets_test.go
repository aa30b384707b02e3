package secrets

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func store(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s := New(dir)
	s.lookup = func(name string) (string, bool) { return "of " + name, !strings.HasSuffix(name, "MISSING") }
	return s, dir
}

func TestWhatAColumnMeans(t *testing.T) {
	s, dir := store(t)
	write(t, filepath.Join(dir, "rabbit"), "from a file\r\n")
	write(t, filepath.Join(dir, "two"), "two\nlines\n\n")
	if err := os.MkdirAll(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "..data", "mounted"), "from a mount")
	if err := os.Symlink(filepath.Join("..data", "mounted"), filepath.Join(dir, "mounted")); err != nil { // as Kubernetes does
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		"":                       "",
		"guest":                  "guest",
		"a:b":                    "a:b",
		"file:rabbit":            "from a file",
		"file:two":               "two\nlines\n",
		"file:mounted":           "from a mount",
		"env:PGAMQP_SECRET_A":    "of PGAMQP_SECRET_A",
		"literal:file:rabbit":    "file:rabbit",
		"literal:":               "",
		"-----BEGIN CERTIFICATE": "-----BEGIN CERTIFICATE",
	} {
		if got, err := s.Resolve(value); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", value, got, err, want)
		}
	}
}

func TestNothingElseIsRead(t *testing.T) {
	s, dir := store(t)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "not this")
	write(t, filepath.Join(dir, "empty"), "")
	write(t, filepath.Join(dir, "long"), strings.Repeat("x", largest+1))
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		"file:" + outside:               "not a path",
		"file:../" + filepath.Base(dir): "not a path",
		"file:":                         "not a path",
		"file:link":                     "escapes",
		"file:.":                        "no file",
		"file:missing":                  "no such file",
		"file:empty":                    "empty",
		"file:long":                     "longer",
		"env:HOME":                      EnvPrefix,
		"env:PGAMQP_SECRET_MISSING":     "no such variable",
	} {
		got, err := s.Resolve(value)
		if err == nil || !strings.Contains(err.Error(), want) || got != "" {
			t.Errorf("%q: %q, %v; want %q", value, got, err, want)
		}
	}
	if _, err := New("").Resolve("file:a"); err == nil || !strings.Contains(err.Error(), "set secrets_dir") {
		t.Errorf("without a folder: %v", err)
	}
}

func TestSecretIsReadAnewAndKeptWhileItIsReplaced(t *testing.T) {
	s, dir := store(t)
	path := filepath.Join(dir, "a")
	write(t, path, "old")
	want := func(want string, stale bool) {
		t.Helper()
		got, err := s.Resolve("file:a")
		_, isStale := errors.AsType[*StaleError](err)
		if got != want || isStale != stale || err != nil && !stale {
			t.Errorf("%q, %v; want %q, stale %t", got, err, want, stale)
		}
	}
	want("old", false)
	write(t, path, "new")
	want("new", false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("new", true)
	s.Sweep()
	want("new", true) // it was asked for
	s.Sweep()
	s.Sweep()
	if got, err := s.Resolve("file:a"); err == nil || got != "" {
		t.Errorf("kept although nothing has asked for it: %q, %v", got, err)
	}
}

// A FIFO without a writer would hold up who opens it, and with it all brokers.
func TestWhatIsNoFileIsNotOpened(t *testing.T) {
	s, dir := store(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"file:fifo", "file:link"} {
		ended := make(chan error, 1)
		go func() { // resolves
			_, err := s.Resolve(value)
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "it is no file") {
				t.Errorf("%s: %v", value, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it hangs", value)
		}
	}
}
