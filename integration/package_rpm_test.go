package integration

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// testRPM names the RPM package of the same build as the Debian package.
const testRPM = "PGAMQP_TEST_RPM"

// TestRPMPackage compares the RPM package with the Debian package, whose program and unit TestPackage runs, and installs
// it into a folder of its own, with what its scripts call.
func TestRPMPackage(t *testing.T) {
	file, debian := os.Getenv(testRPM), os.Getenv(testPackage)
	if os.Getuid() != 0 || file == "" || debian == "" {
		t.Fatalf("run this by make test-package, as root on Debian: %s is %q, %s is %q", testRPM, file, testPackage, debian)
	}
	unpacked := t.TempDir()
	must(t, "dpkg-deb", "--raw-extract", debian, unpacked)
	ask := func(format string) string {
		return must(t, "rpm", "--query", "--package", "--queryformat", format, file)
	}

	listed := must(t, "dpkg-deb", "--contents", debian)
	var files []string
	for _, line := range lines(ask(`[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]`)) {
		mode, rest, _ := strings.Cut(line, " ")
		owner, path, _ := strings.Cut(rest, " ")
		ofDebian := fmt.Sprintf(`(?m)^%s %s +\d+ \S+ \S+ \.%s/?$`, mode, owner, regexp.QuoteMeta(path))
		if !regexp.MustCompile(ofDebian).MatchString(listed) {
			t.Errorf("the Debian package has no %s", line)
		}
		if mode[0] != 'd' {
			files = append(files, path)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^-`).FindAllString(listed, -1)); n != len(files) || n < 20 {
		t.Errorf("%d files, the Debian package has %d", len(files), n)
	}
	for _, script := range [][2]string{{"PREIN", "preinst"}, {"POSTIN", "postinst"}, {"PREUN", "prerm"}, {"POSTUN", "postrm"}} {
		want, err := os.ReadFile(filepath.Join(unpacked, "DEBIAN", script[1]))
		if got := ask("%{" + script[0] + "}"); err != nil || strings.TrimSpace(got) != strings.TrimSpace(string(want)) {
			t.Errorf("%s is not %s of the Debian package: %v\n%s", script[0], script[1], err, got)
		}
	}
	for _, c := range [][2]string{
		{`[%{FILEFLAGS:fflags} %{FILENAMES}\n]`, `(?m)^cn ` + installedSettings + `$`}, // c: configuration, n: never replaced
		{`[%{REQUIRENAME} ]`, `^shadow-utils $`},                                       // what Debian's passwd has
		{`%{NAME} %{LICENSE} %{VERSION}`, `^pgamqp PostgreSQL ` + regexp.QuoteMeta(strings.TrimSpace(must(t, "dpkg-deb", "--field", debian, "Version"))) + `$`},
	} {
		wantMatch(t, ask(c[0]), c[1])
	}
	if n := strings.Count(ask(`[%{FILEFLAGS:fflags}]`), "c"); n != 1 {
		t.Errorf("%d files are configuration", n)
	}
	root := newRoot(t, "/bin/sh", "/usr/bin/getent", "/usr/sbin/groupadd", "/usr/sbin/useradd", "/bin/rm")
	installRPM(t, root, file, files, unpacked)
}

// installRPM installs the package below root, twice, and removes it.
func installRPM(t *testing.T, root, file string, files []string, unpacked string) {
	t.Helper()
	rpm := func(args ...string) string {
		t.Helper()
		return must(t, "rpm", append([]string{"--root", root, "--nodeps"}, args...)...) // it knows none of Debian's packages
	}
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	rpm("--install", file)
	if out := rpm("--verify", "pgamqp"); out != "" {
		t.Errorf("what is installed is not what the package says:\n%s", out)
	}
	for _, path := range files {
		want, err := os.ReadFile(filepath.Join(unpacked, path))
		if err != nil || !bytes.Equal(want, []byte(read(path))) {
			t.Errorf("%s is not that of the Debian package: %v", path, err)
		}
	}
	account := regexp.MustCompile(`(?m)^pgamqp:x:\d+:(\d+):`).FindStringSubmatch(read("/etc/passwd"))
	if account == nil || !strings.Contains(read("/etc/group"), "pgamqp:x:"+account[1]+":") {
		t.Fatalf("no account:\n%s%s", read("/etc/passwd"), read("/etc/group"))
	}
	info, err := os.Stat(filepath.Join(root, installedSettings))
	if err != nil || info.Mode().Perm() != 0o640 || fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid) != account[1] { //nolint:forcetypeassert // on Linux
		t.Errorf("the settings can be read by others than group %s: %+v, %v", account[1], info, err)
	}

	// What an administrator has written outlives an upgrade and a removal.
	const own = "log_level: warn\n"
	if err := os.WriteFile(filepath.Join(root, installedSettings), []byte(own), 0o640); err != nil {
		t.Fatal(err)
	}
	rpm("--upgrade", "--replacepkgs", file)
	if got := read(installedSettings); got != own {
		t.Errorf("after an upgrade the settings are %q", got)
	}
	rpm("--erase", "pgamqp")
	if got := read(installedSettings + ".rpmsave"); got != own {
		t.Errorf("after the removal the settings are %q", got)
	}
	left := []string{"/etc/pgamqp", installedSettings + ".rpmsave"}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if name := strings.TrimPrefix(path, root); strings.Contains(name, "pgamqp") && !slices.Contains(left, name) {
			t.Errorf("%s is there after the removal", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// newRoot makes a folder in which the programs can be run by chroot, with empty files of accounts.
func newRoot(t *testing.T, programs ...string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	libraries := regexp.MustCompile(`/\S+`)
	for _, program := range programs {
		for _, file := range append(libraries.FindAllString(must(t, "ldd", program), -1), program) {
			text, err := os.ReadFile(file)
			if err == nil {
				err = os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(root, file), text, 0o755) //nolint:gosec // programs
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, empty := range []string{"etc/passwd", "etc/group", "etc/shadow", "dev/null"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(empty)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, empty), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }
