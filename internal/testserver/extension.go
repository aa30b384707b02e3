package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// withExtensions makes a copy of an installation, as far as a server needs one of its own to
// have more extensions: PostgreSQL finds its files from where its program lies, and only 18
// can be told another folder for extensions. It returns the copy's folder of programs.
func withExtensions(bin, into, extensions string) (string, error) {
	prefix := filepath.Dir(bin)
	version := filepath.Base(prefix)
	root, share := prefix, filepath.Join(prefix, "share", "postgresql")
	if rest, ok := strings.CutSuffix(prefix, filepath.Join("lib", "postgresql", version)); ok { // Debian
		root, share = filepath.Clean(rest), filepath.Join(rest, "share", "postgresql", version)
	} else if _, err := os.Stat(share); err != nil {
		share = filepath.Join(prefix, "share")
	}
	inside := func(path string) string { return filepath.Join(into, strings.TrimPrefix(path, root)) }

	for _, dir := range []string{bin, share} {
		if err := os.CopyFS(inside(dir), os.DirFS(dir)); err != nil {
			return "", fmt.Errorf("copy %s: %w", dir, err)
		}
	}
	if err := os.Symlink(filepath.Join(prefix, "lib"), inside(filepath.Join(prefix, "lib"))); err != nil {
		return "", err
	}
	added, err := filepath.Glob(filepath.Join(extensions, "*"))
	if err != nil {
		return "", err
	}
	for _, file := range added { // in the place of one that is there, if need be
		content, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(inside(share), "extension", filepath.Base(file)), content, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("add the extensions of %s: %w", extensions, err)
		}
	}
	return inside(bin), nil
}
