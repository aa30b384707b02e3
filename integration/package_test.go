package integration

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testPackage names the Debian package that TestPackage installs.
const testPackage = "PGAMQP_TEST_PACKAGE"

const (
	installedProgram  = "/usr/bin/pgamqp"
	installedUnit     = "/usr/lib/systemd/system/pgamqp.service"
	installedSettings = "/etc/pgamqp/pgamqp.yaml"
)

// must runs a program and returns what it prints.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(withDeadline(t, time.Minute), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestPackage installs the package, runs the daemon as the unit would, and removes it. It changes this machine, so it
// has a target of its own, make test-package.
func TestPackage(t *testing.T) {
	file := os.Getenv(testPackage)
	if os.Getuid() != 0 || file == "" {
		t.Fatalf("run this by make test-package, as root on Debian: %s is %q", testPackage, file)
	}
	if _, err := os.Stat(installedProgram); err == nil {
		t.Fatalf("%s is there already: remove that package first", installedProgram)
	}
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	t.Cleanup(func() { must(t, "dpkg", "--purge", "pgamqp") })
	must(t, "dpkg", "--install", file)

	wantMatch(t, must(t, installedProgram, "version"), `^pgamqp \S+ \(commit [0-9a-f]{40}, `)
	if out := must(t, "systemd-analyze", "verify", "--man=no", installedUnit); out != "" {
		t.Errorf("the unit has mistakes:\n%s", out)
	}
	exposure := must(t, "systemd-analyze", "security", "--offline=true", installedUnit)
	score := regexp.MustCompile(`Overall exposure level for pgamqp.service: ([\d.]+)`).FindStringSubmatch(exposure)
	if n, err := strconv.ParseFloat(append(score, "", "")[1], 64); err != nil || n > 1.5 {
		t.Errorf("the unit is exposed more than 1.5:\n%s", exposure)
	}
	wantMatch(t, must(t, "bash", "-c", "source /usr/share/bash-completion/completions/pgamqp && complete -p pgamqp"), `__start_pgamqp`)
	for _, page := range []string{"pgamqp.1", "pgamqp-run.1", "pgamqp-dead-letters-redeliver.1"} {
		if info, err := os.Stat("/usr/share/man/man1/" + page); err != nil || info.Size() < 100 {
			t.Errorf("manual page %s: %v", page, err)
		}
	}
	if text, err := os.ReadFile("/usr/share/doc/pgamqp/licenses.txt"); err != nil || !strings.Contains(string(text), "github.com/jackc/pgx/v5") {
		t.Errorf("the licenses of what is linked in: %v", err)
	}
	runInstalled(t, w)

	// The extension builds where there is nothing but its archive.
	archives, err := filepath.Glob(filepath.Join(filepath.Dir(file), "pgamqp-extension-*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives of the extension: %q", archives)
	}
	dir := t.TempDir()
	must(t, "tar", "-xzf", archives[0], "-C", dir, "--strip-components=1")
	must(t, "make", "-C", filepath.Join(dir, "sql", "extension"), "install", "DESTDIR="+dir)
	if found, err := filepath.Glob(filepath.Join(dir, "usr/share/postgresql/*/extension/amqp.control")); err != nil || len(found) != 1 {
		t.Errorf("make install has made %q", found)
	}

	// What an administrator has written outlives an upgrade and a removal.
	const own = "log_level: warn\n"
	if err := os.WriteFile(installedSettings, []byte(own), 0o640); err != nil {
		t.Fatal(err)
	}
	must(t, "dpkg", "--install", file)
	must(t, "dpkg", "--remove", "pgamqp")
	if text, err := os.ReadFile(installedSettings); err != nil || string(text) != own {
		t.Errorf("the settings are %q, %v", text, err)
	}
	must(t, "dpkg", "--purge", "pgamqp")
	for _, path := range []string{installedProgram, installedUnit, installedSettings} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is there after the removal: %v", path, err)
		}
	}
}

// runInstalled does what systemd would with the unit: the account, the command, the notifications, the signals.
func runInstalled(t *testing.T, w *world) {
	t.Helper()
	unit, err := os.ReadFile(installedUnit)
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		match := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindSubmatch(unit)
		if match == nil {
			t.Fatalf("the unit has no %s", name)
		}
		return string(match[1])
	}
	account, err := user.Lookup(setting("User"))
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid) // a number on every system that this runs on
	gid, _ := strconv.Atoi(account.Gid)
	folder, err := os.MkdirTemp("", "pgamqp-notify-") //nolint:usetesting // others may not enter the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	path := filepath.Join(folder, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	for _, open := range []string{folder, path} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	command := strings.Fields(setting("ExecStart"))
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{
		"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=600000", "PGAMQP_DATABASE_URL=" + w.url(), "PGAMQP_SLOT=" + w.slot, "PGAMQP_LISTEN=127.0.0.1:0",
	}
	var log logBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", log.String())
		}
	})
	heard := func(patterns ...string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(startLimit)); err != nil {
			t.Fatal(err)
		}
		for buffer := make([]byte, 4096); len(patterns) > 0; {
			n, err := socket.Read(buffer)
			if err != nil {
				t.Fatalf("systemd would not have heard %q: %v\n%s", patterns[0], err, log.String())
			}
			if regexp.MustCompile(patterns[0]).Match(buffer[:n]) {
				patterns = patterns[1:]
			}
		}
	}
	heard(`(?m)^READY=1$`, `^STATUS=ready\nWATCHDOG=1$`)
	w.exec(`select amqp.publish(1, '', 'q', 'installed')`)
	if got := strings.Join(bodies(w.received(1, "q")), " "); got != "installed" {
		t.Errorf("%q came", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	heard(`(?m)^STOPPING=1$`)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
