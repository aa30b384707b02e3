package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

const (
	// cacheVariable names the folder in which `make setup` unpacks PostgreSQL versions that
	// the distribution does not have.
	cacheVariable = "PGAMQP_TEST_CACHE"

	// versionVariable names the PostgreSQL version of servers that do not ask for one, so
	// that one suite can be run against each.
	versionVariable = "PGAMQP_TEST_POSTGRES"

	preferredVersion = 15
)

// Versions lists the supported major versions of PostgreSQL, oldest first.
//
//nolint:gochecknoglobals // read-only; Go has no constant slices
var Versions = []int{14, 15, 16, 17, 18}

// DefaultVersion is the PostgreSQL version of a server that does not ask for one: that of
// PGAMQP_TEST_POSTGRES if set, else 15, else the newest installed one.
func DefaultVersion() (int, error) {
	if s := os.Getenv(versionVariable); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil || !slices.Contains(Versions, v) {
			return 0, fmt.Errorf("read %s: %q is not one of %v", versionVariable, s, Versions)
		}
		return v, nil
	}
	if _, err := postgresPrograms(preferredVersion); err == nil {
		return preferredVersion, nil
	}
	for _, v := range slices.Backward(Versions) {
		if _, err := postgresPrograms(v); err == nil {
			return v, nil
		}
	}
	return preferredVersion, nil // its start says what is missing
}

// postgresPrograms finds the folder with initdb and postgres of a version.
func postgresPrograms(version int) (string, error) {
	places := []string{
		fmt.Sprintf("/usr/lib/postgresql/%d/bin", version), // Debian
		fmt.Sprintf("/usr/pgsql-%d/bin", version),          // Red Hat
	}
	for _, cache := range cacheFolders() {
		places = append(places, filepath.Join(cache, fmt.Sprintf("postgresql-%d", version), "bin"))
	}
	for _, dir := range places {
		if executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("find PostgreSQL %d: not in any of %v; run `make setup`", version, places)
}

// cacheFolders lists where the set-up script may have unpacked programs.
func cacheFolders() []string {
	if dir := os.Getenv(cacheVariable); dir != "" {
		return []string{dir}
	}
	all := []string{"/var/cache/pgamqp-test"}
	if dir, err := os.UserCacheDir(); err == nil {
		all = append(all, filepath.Join(dir, "pgamqp-test"))
	}
	return all
}

// findProgram looks for a program in folders first, as some distributions keep wrappers of
// the same name in PATH, then in PATH.
func findProgram(name string, folders ...string) (string, error) {
	for _, dir := range folders {
		if path := filepath.Join(dir, name); executable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s: not in %v nor in PATH; run `make setup`", name, folders)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
