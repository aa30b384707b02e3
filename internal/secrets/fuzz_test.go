package secrets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzResolve: no column of a row makes the daemon read a file outside of the folder, or a variable without the prefix, and no
// error tells a secret.
func FuzzResolve(f *testing.F) {
	parent := f.TempDir()
	dir := filepath.Join(parent, "secrets")
	outside := filepath.Join(parent, "outside")
	for _, err := range []error{
		os.Mkdir(dir, 0o700), os.Mkdir(filepath.Join(dir, "inner"), 0o700),
		os.WriteFile(outside, []byte("Outside-"), 0o600), os.WriteFile(filepath.Join(dir, "inside"), []byte("Inside-\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "inner", "one"), []byte("Inside-"), 0o600),
		os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink("..", filepath.Join(dir, "up")), os.Symlink("inside", filepath.Join(dir, "same")),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	for _, s := range []string{
		"file:inside", "file:inner/one", "file:same", "file:link", "file:up/outside", "file:../outside", "file:" + outside, "file:inner/../../outside",
		"file:", "file:.", "file:inner", "file:inside\x00", "file:file:inside", "env:HOME", "env:PGAMQP_SECRET_A", "env:", "literal:file:inside", "guest",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s := New(dir)
		s.lookup = func(name string) (string, bool) {
			if !strings.HasPrefix(name, EnvPrefix) {
				t.Fatalf("variable %q was read", name)
			}
			return "Inside-", true
		}
		got, err := s.Resolve(value)
		rest := strings.TrimPrefix(value, "literal:")
		switch {
		case strings.Contains(got, "Outside-") && got != rest:
			t.Fatalf("%q is %q", value, got)
		case err != nil && (got != "" || strings.Contains(err.Error(), "side-") && !strings.Contains(value, "side-")):
			t.Fatalf("%q is %q and %v", value, got, err)
		case err == nil && got != "Inside-" && got != rest:
			t.Fatalf("%q is %q", value, got)
		}
	})
}
