package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 40 * time.Second // above the daemon's own
)

// daemon is one process of `pgamqp run`.
type daemon struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   logBuffer
	ended chan struct{} // closed when the process is gone
	ask   http.Client
	quiet bool // its log is not shown when the test fails
}

// launch starts the program with the given arguments and does not wait for it.
func launch(t *testing.T, args ...string) *daemon {
	t.Helper()
	cmd := exec.Command(shared.program, args...)
	cmd.Env = cleanEnvironment()
	return follow(t, cmd)
}

// follow is launch for a program in an environment of its own.
func follow(t *testing.T, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{
		t: t, cmd: cmd, ended: make(chan struct{}),
		ask: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := testserver.StartChild(d.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // its error is the exit code, which the test judges
		close(d.ended)
	}()
	t.Cleanup(d.cleanup)
	return d
}

// cleanup ends a daemon that the test has left running, and judges its log.
func (d *daemon) cleanup() {
	if d.running() {
		if code := d.stop(); code != 0 {
			d.t.Errorf("the daemon's exit code at the end of the test is %d", code)
		}
	}
	checkLog(d.t, d.log.String())
	if d.t.Failed() && !d.quiet && d.cmd.Args[1] == "run" {
		d.t.Logf("log of daemon %d:\n%s", d.cmd.Process.Pid, d.log.tail())
	}
}

func (d *daemon) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// wait returns the exit code of a process that is about to end.
func (d *daemon) wait(limit time.Duration) int {
	d.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-d.ended:
	case <-timer.C:
		d.kill()
		d.t.Errorf("the daemon did not end within %s\n%s", limit, d.log.tail())
	}
	return d.cmd.ProcessState.ExitCode()
}

// stop is what a supervisor does: SIGTERM. It returns the exit code.
func (d *daemon) stop() int {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	return d.wait(stopLimit)
}

// kill is a crash: SIGKILL.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	<-d.ended
}

// signal sends one, such as SIGCONT, unless the process is gone. After SIGSTOP it stands still.
func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	var err error
	if s == syscall.SIGSTOP {
		err = testserver.Suspend(d.cmd.Process)
	} else {
		err = d.cmd.Process.Signal(s)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Errorf("send %s: %v", s, err)
	}
}

// waitReady waits until /readyz says that messages flow.
func (d *daemon) waitReady() {
	d.t.Helper()
	d.waitState("ready")
}

// waitStandby waits until /readyz says that another daemon has the slot.
func (d *daemon) waitStandby() {
	d.t.Helper()
	d.waitState("standby")
}

func (d *daemon) waitState(want string) {
	d.t.Helper()
	await(d.t, startLimit, "the daemon is "+want, func() bool {
		if !d.running() {
			d.t.Fatalf("the daemon ended with %d before it was %s\n%s", d.cmd.ProcessState.ExitCode(), want, d.log.tail())
		}
		return d.is(want)
	})
}

// is tells whether /readyz answers 200 and this.
func (d *daemon) is(state string) bool {
	d.t.Helper()
	if d.address() == "" {
		return false
	}
	code, said := d.get("/readyz")
	if code == http.StatusOK && said != "ready\n" && said != "standby\n" {
		d.t.Errorf("/readyz answers 200 and %q", said)
	}
	return code == http.StatusOK && said == state+"\n"
}

// ends waits until a daemon ends by itself, with this code and a log that matches all patterns.
func (d *daemon) ends(code int, patterns ...string) {
	d.t.Helper()
	if got := d.wait(time.Minute); got != code {
		d.t.Errorf("exit code %d, want %d", got, code)
	}
	d.wantLog(patterns...)
}

// said returns the position in the log that a pattern has in parentheses.
func (d *daemon) said(pattern string) pglogrepl.LSN {
	d.t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(d.log.String())
	if match == nil {
		d.t.Fatalf("the log does not match %q", pattern)
	}
	lsn, err := pglogrepl.ParseLSN(match[1])
	if err != nil {
		d.t.Fatal(err)
	}
	return lsn
}

// wantLog checks that the log matches all patterns.
func (d *daemon) wantLog(patterns ...string) {
	d.t.Helper()
	plain := strings.NewReplacer(`\"`, `"`, `\n`, "\n").Replace(d.log.String()) // a log line quotes them
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(plain) {
			d.t.Errorf("the log does not match %q", p)
		}
	}
}

// listening matches the line of a log in text or JSON.
var listening = regexp.MustCompile(`"?msg"?[=:]"?listening"?[ ,]"?address"?[=:]"?([^\s"]+)`)

// address is where the HTTP server listens, empty while it does not.
func (d *daemon) address() string {
	if match := listening.FindStringSubmatch(d.log.String()); match != nil {
		return match[1]
	}
	return ""
}

// get asks the HTTP server; code 0 means that it does not answer.
func (d *daemon) get(path string) (code int, body string) {
	reply, err := d.ask.Get("http://" + d.address() + path)
	if err != nil {
		return 0, err.Error()
	}
	content, err := io.ReadAll(reply.Body)
	if err := errors.Join(err, reply.Body.Close()); err != nil {
		return 0, err.Error()
	}
	return reply.StatusCode, string(content)
}

// metric reads /metrics and adds up the series of a name that have all the given labels, in
// the form broker="1".
func (d *daemon) metric(name string, labels ...string) float64 {
	d.t.Helper()
	sum, found, text := d.sum(name, labels...)
	if !found {
		d.t.Fatalf("no metric %s with %v in\n%s", name, labels, text)
	}
	return sum
}

// reading is metric for what is awaited: NaN as long as there is no such series, which no comparison holds for. A stream
// and a broker have series from their beginning on, and that may be yet to come.
func (d *daemon) reading(name string, labels ...string) float64 {
	d.t.Helper()
	sum, found, _ := d.sum(name, labels...)
	if !found {
		return math.NaN()
	}
	return sum
}

// sum adds series up, and tells whether there are any.
func (d *daemon) sum(name string, labels ...string) (sum float64, found bool, text string) {
	d.t.Helper()
	code, text := d.get("/metrics")
	if code != http.StatusOK {
		d.t.Fatalf("/metrics answers %d: %s", code, text)
	}
series:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue series
			}
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			d.t.Fatalf("read metric %q: %v", line, err)
		}
		sum, found = sum+value, true
	}
	return sum, found, text
}

// waitLog waits until the log holds a text.
func (d *daemon) waitLog(text string) {
	d.t.Helper()
	await(d.t, startLimit, fmt.Sprintf("the log says %q", text), func() bool {
		return strings.Contains(d.log.String(), text)
	})
}

// peakMemory is the most memory that the process has had, in bytes.
func (d *daemon) peakMemory() int64 {
	d.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	d.t.Fatal("the system does not tell the peak of the daemon's memory")
	return 0
}

// logBuffer keeps what a process prints.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// tail returns the last lines.
func (b *logBuffer) tail() string {
	const limit = 16 << 10
	s := b.String()
	if len(s) > limit {
		_, s, _ = strings.Cut(s[len(s)-limit:], "\n")
	}
	return s
}

// pgamqp runs a command that ends by itself and returns its exit code and all it prints.
func pgamqp(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	d := launch(t, args...)
	return d.wait(time.Minute), d.log.String()
}
