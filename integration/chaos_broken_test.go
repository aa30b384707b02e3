package integration

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const (
	// brokenTime bounds how long it may take until a broken program is found out.
	brokenTime = 5 * time.Minute
	// controlTime is for how long the program as it is has to pass at least.
	controlTime = time.Minute
	// runSlack is how much longer than it is told a run may take.
	runSlack = settleLimit + time.Minute
)

// TestBrokenBuilds shows that TestChaos finds what it looks for. Each patch in testdata/broken makes one of
// the mistakes that lose messages; a run against that program has to fail, and for that reason. A run
// against the program without the patch, under the same faults and for as long, has to pass: then it is the
// patch that is complained of.
func TestBrokenBuilds(t *testing.T) {
	for _, broken := range []struct {
		patch, faults string
		complaints    []string // one of them is enough
	}{
		// While a broker cannot be reached, the unit that is skipped is not even on its way.
		{"position_plus_one", `daemon killed|path to node \d is gone`, []string{wasLost}},
		{"highest_confirmed_position", `daemon killed|path to node \d is slow`, []string{wasAhead, wasLost}},
		{"verdicts_by_notify_publish", `has a full queue`, []string{wasAhead, wasLost}},
		{"returns_are_ignored", `daemon killed|loses a binding`, []string{wasAhead, wasLost}},
	} {
		t.Run(broken.patch, func(t *testing.T) {
			took := findOut(t, broken.patch, broken.faults, broken.complaints)
			t.Run("without", func(t *testing.T) {
				code, output := runChaos(t, shared.program, broken.faults, max(took, controlTime).Round(time.Second))
				if code != 0 {
					t.Errorf("a run against the program as it is ends with code %d:\n%s", code, endOf(output))
				}
				t.Log(regexp.MustCompile(`chaos: .*complaints.*\n.*`).FindString(output))
			})
		})
	}
}

// findOut runs against a broken program until one of the complaints, and returns how long that took.
func findOut(t *testing.T, patch, faults string, complaints []string) time.Duration {
	t.Helper()
	program, err := buildBroken(t.TempDir(), patch)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	code, output := runChaos(t, program, faults, brokenTime)
	took := time.Since(began)
	for _, found := range regexp.MustCompile(`times: (.*):\n`).FindAllStringSubmatch(output, -1) {
		if code == 1 && slices.Contains(complaints, found[1]) {
			t.Logf("found out after %s: %s", took.Round(time.Second), found[1])
			return took
		}
	}
	t.Errorf("a run against this program ends with code %d and does not complain of %q:\n%s", code, complaints, endOf(output))
	return took
}

func endOf(output string) string { return output[max(0, len(output)-20_000):] }

// TestPatchesOfBrokenBuildsFit is what the ordinary run knows of them: they fit the code as it is.
func TestPatchesOfBrokenBuildsFit(t *testing.T) {
	t.Parallel()
	patches, err := filepath.Glob(filepath.Join("testdata", "broken", "*.patch"))
	if err != nil || len(patches) < 4 {
		t.Fatalf("patches %q, %v", patches, err)
	}
	folder := t.TempDir()
	if err := copyModule(folder); err != nil {
		t.Fatal(err)
	}
	for _, patch := range patches {
		path, err := filepath.Abs(patch)
		if err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", path)
		check.Dir, check.Env = folder, append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(folder))
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", patch, err, out)
		}
	}
}

// buildBroken builds the program of a copy of the module with a patch applied.
func buildBroken(folder, patch string) (program string, err error) {
	source := filepath.Join(folder, "module")
	if err := copyModule(source); err != nil {
		return "", err
	}
	applied, err := filepath.Abs(filepath.Join("testdata", "broken", patch+".patch"))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program = filepath.Join(folder, "pgamqp")
	for _, args := range [][]string{
		// Without the variable git would look for a repository around the folder and leave out what is not in it.
		{"git", "apply", "--verbose", applied},
		{"go", "build", "-race", "-buildvcs=false", "-o", program, "./cmd/pgamqp"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = source, append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(source))
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", errors.Join(errors.New(strings.Join(args, " ")+"\n"+string(out)), err)
		}
	}
	return program, nil
}

// copyModule copies what the program is built from.
func copyModule(to string) error {
	return filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if entry.IsDir() {
			if path != ".." && (name == "integration" || name == "tools" || name == "bin" || name == "testdata" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".sql") && !strings.HasPrefix(name, "go.") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, ".."))
		return errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, 0o600))
	})
}

// runChaos runs TestChaos against a program, in a process of its own, as it may be expected to fail.
func runChaos(t *testing.T, program, faults string, length time.Duration) (code int, output string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(self, "-test.run=^TestChaos$", "-test.v", "-test.timeout="+(length+runSlack).String())
	cmd.Env = append(os.Environ(), testProgram+"="+program, chaosTime+"="+length.String(), chaosFaults+"="+faults)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := testserver.StartChild(cmd); err != nil {
		t.Fatal(err)
	}
	var failed *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}
