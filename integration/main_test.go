package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// environment is what all tests share.
type environment struct {
	program  string // the binary under test
	postgres *testserver.Postgres
	rabbit   *testserver.RabbitMQ

	breakable chan *testserver.RabbitMQ // nodes that no test uses now; nil has never been started
}

//nolint:gochecknoglobals // a server takes seconds to start, so there is one for all tests
var shared environment

// testProgram is a variable that names the program under test. The tests that are given one have servers of
// their own.
const testProgram = "PGAMQP_TEST_PROGRAM"

// maxMessageSize is what the shared RabbitMQ takes at most, in bytes: a little more than the
// largest message that a test sends for success, so that a refused one need not be huge.
const maxMessageSize = 65 << 20

func TestMain(m *testing.M) {
	flag.Parse()
	folder, err := os.MkdirTemp("", "pgamqp-integration-")
	code := 1
	if err == nil {
		err = shared.start(folder)
	}
	if err == nil {
		watchForHang()
		code = m.Run()
	}
	if err := errors.Join(err, shared.close(), os.RemoveAll(folder)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// start builds the program, with the race detector, and starts the servers. The runner of faults has servers
// of its own.
func (e *environment) start(folder string) error {
	if e.program = os.Getenv(testProgram); e.program != "" {
		return nil
	}
	if os.Getenv(chaosTime) != "" {
		var err error
		e.program, err = build(folder)
		return err
	}
	e.breakable = newBreakables()
	var all errgroup.Group
	all.Go(func() error {
		var err error
		e.program, err = build(folder)
		return err
	})
	all.Go(func() error {
		var err error
		e.postgres, err = testserver.StartPostgres(testserver.PostgresOptions{Settings: map[string]string{
			"max_prepared_transactions": "10",
			"max_replication_slots":     "60",
			"max_wal_senders":           "60",
			"max_connections":           "200",
			"log_checkpoints":           "off",
		}})
		return err
	})
	all.Go(func() error {
		var err error
		e.rabbit, err = testserver.StartRabbitMQ(testserver.RabbitMQOptions{
			Config: []string{fmt.Sprintf("max_message_size = %d", maxMessageSize)},
		})
		return err
	})
	return all.Wait()
}

func (e *environment) close() error {
	var err error
	if e.postgres != nil {
		err = e.postgres.Close()
	}
	if e.rabbit != nil {
		err = errors.Join(err, e.rabbit.Close())
	}
	for range len(e.breakable) {
		if rabbit := <-e.breakable; rabbit != nil {
			err = errors.Join(err, rabbit.Close())
		}
	}
	return err
}

// build makes the program with the race detector.
func build(folder string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	program := filepath.Join(folder, "pgamqp")
	out, err := exec.CommandContext(ctx, "go", "build", "-race", "-o", program, "../cmd/pgamqp").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return program, nil
}

// cleanEnvironment is ours without what would configure the program or its driver.
func cleanEnvironment() []string {
	// A data race ends the program at once, with a code of its own; without a race, there is
	// nothing to wait for at the exit.
	env := []string{"GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "GORACE=") {
			env = append(env, v)
		}
	}
	return env
}

// The passwords of all tests. None may ever be seen in what the program prints, see checkLog.
const (
	anyPassword     = "Password-" // what they have in common
	rolePassword    = anyPassword + "of-a-role"
	userPassword    = anyPassword + "of-a-user"
	wrongPassword   = anyPassword + "that-is-wrong"
	changedPassword = anyPassword + "that-was-changed"
)

// checkLog fails the test for what no output of the program may hold.
func checkLog(t *testing.T, log string) {
	t.Helper()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", anyPassword} {
		if strings.Contains(log, bad) {
			t.Errorf("the program prints a %s\n%s", strings.TrimSuffix(bad, ":"), log)
		}
	}
}

// await waits until ok, which is asked again and again.
func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited %s for this in vain: %s", limit, what)
		}
	}
}

// withDeadline is the test's context with a limit, usable in its cleanup, too.
func withDeadline(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	t.Cleanup(cancel)
	return ctx
}
