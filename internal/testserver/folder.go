package testserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	folderPrefix = "pgamqp-test-"
	ownerFile    = "owner"

	// unownedAge is how old a folder without an owner must be before it is swept: a
	// younger one may belong to a process that is about to write the name.
	unownedAge = 10 * time.Minute

	// longestFolder keeps the path of a Unix socket in the folder below the limit of 107 bytes.
	longestFolder = 70
)

// sweepOnce removes the folders of dead owners before this process makes its first one.
//
//nolint:gochecknoglobals // once per process is the point
var sweepOnce = sync.OnceFunc(func() { sweep(temporaryBase()) })

// newFolder makes an empty folder that says who owns it. Others may pass through it, as
// servers of another user have their own folders in it, but not list it.
func newFolder(kind string) (string, error) {
	sweepOnce()
	dir, err := os.MkdirTemp(temporaryBase(), folderPrefix+kind+"-")
	if err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", kind, err)
	}
	err = os.WriteFile(filepath.Join(dir, ownerFile), []byte(thisProcess().String()), 0o600)
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("prepare folder %s: %w", dir, err), os.RemoveAll(dir))
	}
	return dir, nil
}

// removeFolder deletes dir. A server that was just killed can still be closing files in
// it, which makes a removal miss some, so it tries more than once.
func removeFolder(dir string) error {
	var err error
	for range 5 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // nothing tells when a stranger's process is gone
	}
	return err
}

// sweep removes the folders in base whose owners are dead. Errors do not matter: a folder
// of another user is not ours to remove, and the next sweep tries the rest again.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, folderPrefix+"*"))
	for _, dir := range dirs {
		if abandoned(dir) {
			_ = removeFolder(dir)
		}
	}
}

// abandoned says that nobody uses dir any more.
func abandoned(dir string) bool {
	content, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err == nil {
		if id, perr := parseProcessID(string(content)); perr == nil {
			return !id.alive()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	info, err := os.Lstat(dir)
	return err == nil && info.IsDir() && time.Since(info.ModTime()) > unownedAge
}

// temporaryBase is the folder for our folders: the usual one, unless the user that servers
// run as could not reach files in it or its name is too long for a socket.
func temporaryBase() string {
	if dir := os.TempDir(); len(dir) <= longestFolder && reachable(dir) {
		return dir
	}
	return "/tmp"
}

// reachable says that any user can pass through dir and all folders above it.
func reachable(dir string) bool {
	if os.Getuid() != 0 {
		return true // servers run as we do
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}
