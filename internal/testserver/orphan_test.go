package testserver

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperVariable turns the test binary into a process that starts servers and is killed.
const helperVariable = "PGAMQP_TESTSERVER_HELPER"

// helperReport is what the helper tells: every process it started, and their folders.
type helperReport struct{ PIDs, Folders []string }

func TestMain(m *testing.M) {
	if kind := os.Getenv(helperVariable); kind != "" {
		if err := helper(kind); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop"))
}

// helper starts servers, reports them and waits to be killed or for the end of its input.
func helper(kind string) error {
	p, err := StartPostgres(PostgresOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	processes := append(childrenOf(p.PID()), idOf(p.PID()))
	report := helperReport{Folders: []string{p.folder}}
	if kind == "all" {
		r, err := StartRabbitMQ(RabbitMQOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		m, err := StartPrometheus(PrometheusOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = m.Close() }()
		processes = append(processes, childrenOf(r.PID())...)
		processes = append(processes, idOf(r.PID()), idOf(r.epmd.proc.pid()), idOf(m.proc.pid()))
		report.Folders = append(report.Folders, r.folder, m.folder)
	}
	for _, id := range processes {
		report.PIDs = append(report.PIDs, id.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func idOf(pid int) processID {
	_, start, _ := processStat(pid)
	return processID{pid, start}
}

// startHelper starts the helper in a folder for temporary files of its own, and returns how
// to end it.
func startHelper(t *testing.T, kind, temporary string) (r helperReport, cmd *exec.Cmd, stdin io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperVariable+"="+kind, "TMPDIR="+temporary)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := spawn(cmd, nil, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the helper says %q, %v", line, errors.Join(err, cmd.Wait()))
	}
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	return r, cmd, in
}

func TestServersDieWithTheirParentAndTheNextOneSweeps(t *testing.T) {
	t.Parallel()
	temporary, err := os.MkdirTemp("", "sweep") //nolint:usetesting // the servers' user cannot pass through the parents of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := os.Chmod(temporary, 0o755); err != nil {
		t.Fatal(err)
	}

	report, cmd, _ := startHelper(t, "all", temporary)
	var processes []processID
	for _, s := range report.PIDs {
		id, err := parseProcessID(s)
		if err != nil || !id.alive() {
			t.Fatalf("process %q does not run: %v", s, err)
		}
		processes = append(processes, id)
	}
	if len(processes) < 10 || len(report.Folders) != 3 {
		t.Fatalf("the helper reports too little: %+v", report)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its error is the kill
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := await(ctx, nil, 10*time.Millisecond, func() bool {
		return !slices.ContainsFunc(processes, processID.alive)
	}); err != nil {
		t.Errorf("processes outlived their parent: %v", slices.DeleteFunc(processes, func(id processID) bool { return !id.alive() }))
	}

	// A folder whose owner lives, and one that just came to be, must stay.
	mine := filepath.Join(temporary, folderPrefix+"mine")
	young := filepath.Join(temporary, folderPrefix+"young")
	if err := errors.Join(os.Mkdir(mine, 0o700), os.Mkdir(young, 0o700),
		os.WriteFile(filepath.Join(mine, ownerFile), []byte(thisProcess().String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	next, cmd, stdin := startHelper(t, "postgres", temporary)
	for _, dir := range report.Folders {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the folder of a dead process is still there: %v", err)
		}
	}
	for _, dir := range []string{mine, young, next.Folders[0]} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("a folder in use was swept: %v", err)
		}
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Errorf("end of the helper: %v", err)
	}
	if _, err := os.Stat(next.Folders[0]); !os.IsNotExist(err) {
		t.Errorf("Close left its folder: %v", err)
	}
}

// The parent-death signal comes when the forking thread ends, so threads that come and go
// must not take servers with them.
func TestServersOutliveTheThreadThatAskedForThem(t *testing.T) {
	t.Parallel()
	result := make(chan error)
	var p *Postgres
	go func() {
		// A goroutine that ends while locked takes its thread with it.
		runtime.LockOSThread()
		var err error
		p, err = StartPostgres(PostgresOptions{})
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if got := query(t, p, "select 'there'"); got != "there" {
		t.Error(got)
	}
	if p.proc.ended(200 * time.Millisecond) {
		t.Error("the server ended with the thread")
	}
}

func TestServersIgnoreTheTerminalsInterrupt(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	group, err := syscall.Getpgid(p.PID())
	if err != nil || group != p.PID() || group == syscall.Getpgrp() {
		t.Errorf("process group %d of pid %d: %v", group, p.PID(), err)
	}
}
