package integration

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// testImage names the folder with the archives that TestImage looks at.
const testImage = "PGAMQP_TEST_IMAGE"

// TestImage looks into the images of both architectures, and runs the daemon out of that of this machine as a container
// would: its files are all that there is, the user, the environment and the command are those that it names. There is
// no container engine on every machine, so the test changes the root folder by itself, for which it has to be root.
func TestImage(t *testing.T) {
	folder := os.Getenv(testImage)
	if os.Getuid() != 0 || folder == "" {
		t.Fatalf("run this by make test-image, as root: %s is %q", testImage, folder)
	}
	images := make(map[string]ociImage)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		found, err := filepath.Glob(filepath.Join(folder, "pgamqp-*-linux-"+arch+".oci.tar"))
		if err != nil || len(found) != 1 {
			t.Fatalf("images for %s in %s: %v, %v", arch, folder, found, err)
		}
		images[arch] = readOCI(t, found[0])
		checkImage(t, arch, machine, images[arch])
	}
	image, ok := images[runtime.GOARCH]
	if !ok {
		t.Fatalf("there is no image for %s", runtime.GOARCH)
	}
	runImage(t, image)
	joinImages(t, folder)
}

// joinImages runs the commands of docs/operations.md that make one name of both images, with a folder for a registry.
func joinImages(t *testing.T, folder string) {
	t.Helper()
	amd64, err := filepath.Glob(filepath.Join(folder, "*-linux-amd64.oci.tar"))
	if err != nil || len(amd64) != 1 {
		t.Fatalf("%v, %v", amd64, err)
	}
	store, registry := t.TempDir(), filepath.Join(t.TempDir(), "registry")
	t.Setenv("STORAGE_DRIVER", "vfs")
	here := strings.NewReplacer(
		"dist/pgamqp-1.0.0", strings.TrimSuffix(amd64[0], "-linux-amd64.oci.tar"),
		"docker://registry.example.com/pgamqp:1.0.0", "oci:"+registry+":pgamqp",
	)
	for _, line := range linesOf(claimedBy(t, "TestImage", "sh", "docs/operations.md")[0]) {
		words := strings.Fields(here.Replace(line))
		switch words[0] {
		case "make": // by which this test is run
		case "buildah":
			must(t, "buildah", append([]string{"--root", store + "/root", "--runroot", store + "/run"}, words[1:]...)...)
		default:
			t.Errorf("nobody runs %q", line)
		}
	}
	blobs, err := filepath.Glob(filepath.Join(registry, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	both := 0
	for _, blob := range blobs {
		content, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(`"platform":{"architecture":"amd64"`)) && bytes.Contains(content, []byte(`"platform":{"architecture":"arm64"`)) {
			both++
		}
	}
	if both != 1 {
		t.Errorf("%d of %d files list both architectures", both, len(blobs))
	}
}

// checkImage looks at all that does not need to be run.
func checkImage(t *testing.T, arch string, machine elf.Machine, image ociImage) {
	t.Helper()
	c := image.Config
	for what, differs := range map[string]bool{
		"platform":       image.OS != "linux" || image.Architecture != arch,
		"name":           !strings.HasPrefix(image.name, "localhost/pgamqp:"),
		"user":           c.User != "65532:65532", // Kubernetes compares numbers with runAsNonRoot
		"entrypoint":     !slices.Equal(c.Entrypoint, []string{"/usr/bin/pgamqp"}),
		"command":        !slices.Equal(c.Cmd, []string{"run"}),
		"exposed ports":  !slices.Equal(slices.Collect(maps.Keys(c.ExposedPorts)), []string{"9465/tcp"}),
		"listen address": !slices.Contains(c.Env, "PGAMQP_LISTEN=:9465"),
		"path":           !slices.Contains(c.Env, "PATH=/usr/bin"), // for `pgamqp status` in a container that runs
	} {
		if differs {
			t.Errorf("image for %s: wrong %s: %q, %+v", arch, what, image.name, c)
		}
	}
	for label, pattern := range map[string]string{
		"title": `^pgamqp$`, "description": `PostgreSQL.*RabbitMQ`, "licenses": `^PostgreSQL$`,
		"version": `^\d+\.\d+\.\d+(-dev\+[\w.]+)?$`, "revision": `^[0-9a-f]{40}$`,
	} {
		wantMatch(t, c.Labels["org.opencontainers.image."+label], pattern)
	}

	modes := make(map[string]int64)
	for path, f := range image.files {
		modes[path] = f.mode & 0o7777
	}
	if want := map[string]int64{
		"/usr/bin/pgamqp": 0o755, "/etc/ssl/certs/ca-certificates.crt": 0o644, "/usr/share/doc/pgamqp/copyright": 0o644, "/usr/share/doc/pgamqp/licenses.txt": 0o644,
	}; !maps.Equal(modes, want) {
		t.Errorf("image for %s has the files and modes %v, want %v", arch, modes, want)
	}
	if image.size > 12<<20 {
		t.Errorf("image for %s is %d bytes large", arch, image.size)
	}

	program, err := elf.NewFile(bytes.NewReader(image.files["/usr/bin/pgamqp"].content))
	if err != nil {
		t.Fatalf("program for %s: %v", arch, err)
	}
	if program.Machine != machine || program.Section(".interp") != nil {
		t.Errorf("program for %s is for %s, with a dynamic linker: %t", arch, program.Machine, program.Section(".interp") != nil)
	}

	authorities := 0
	for rest := image.files["/etc/ssl/certs/ca-certificates.crt"].content; len(rest) > 0; authorities++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Errorf("certificate %d: %v", authorities, err)
		}
	}
	if authorities < 50 {
		t.Errorf("image for %s trusts %d authorities", arch, authorities)
	}
}

// container is the unpacked image, in which commands run with its user and environment.
type container struct {
	t     *testing.T
	root  string
	image ociImage
	env   []string
}

func unpack(t *testing.T, image ociImage, env ...string) *container {
	t.Helper()
	root, err := os.MkdirTemp("", "pgamqp-image-") //nolint:usetesting // others may not enter the test's own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, f := range image.files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.content, os.FileMode(f.mode)); err != nil {
			t.Fatal(err)
		}
	}
	return &container{t: t, root: root, image: image, env: append(slices.Clone(image.Config.Env), env...)}
}

// start runs the image's program; without arguments with those that the image names.
func (c *container) start(args ...string) *daemon {
	c.t.Helper()
	var uid, gid uint32
	if n, err := fmt.Sscanf(c.image.Config.User, "%d:%d", &uid, &gid); n != 2 {
		c.t.Fatalf("user %q: %v", c.image.Config.User, err)
	}
	if len(args) == 0 {
		args = c.image.Config.Cmd
	}
	program := c.image.Config.Entrypoint[0]
	cmd := &exec.Cmd{Path: program, Args: append(slices.Clone(c.image.Config.Entrypoint), args...), Dir: "/", Env: c.env}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return follow(c.t, cmd)
}

// runImage prepares a database, delivers a message and stops, by the program of the image alone.
func runImage(t *testing.T, image ociImage) {
	t.Helper()
	w := newWorld(t, worldOptions{bare: true, postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	port := closedPort(t)
	c := unpack(t, image, "PGAMQP_DATABASE_URL="+w.url(), fmt.Sprintf("PGAMQP_LISTEN=:%d", port))
	command := func(want int, args ...string) string {
		t.Helper()
		d := c.start(args...)
		if code := d.wait(time.Minute); code != want {
			t.Errorf("%q: exit code %d, want %d\n%s", args, code, want, d.log.String())
		}
		return d.log.String()
	}
	wantMatch(t, command(0, "version"), `^pgamqp \S+ \(commit `+image.Config.Labels["org.opencontainers.image.revision"]+`, `)
	command(1, "health")
	command(0, "install")
	w.exec(`insert into amqp.broker (broker_id, host, port, vhost) values (1, $1, $2, $3)`, w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])

	d := c.start()
	await(t, startLimit, "the daemon listens on all addresses", func() bool {
		return strings.Contains(d.log.String(), fmt.Sprintf("msg=listening address=[::]:%d", port))
	})
	d.waitReady()
	wantMatch(t, command(0, "health"), `^alive\n$`)
	wantMatch(t, command(0, "health", "--ready"), `^ready\n$`)
	w.exec(`select amqp.publish(1, '', 'q', 'out of the image')`)
	if got := strings.Join(bodies(w.received(1, "q")), " "); got != "out of the image" {
		t.Errorf("%q came", got)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("after SIGTERM: exit code %d", code)
	}
	command(1, "health")
}
