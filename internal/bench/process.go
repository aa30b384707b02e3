package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// cpuTime returns the time for which a process and its threads have had a CPU; false if that cannot
// be told: it is not on this machine, or this is not Linux. The scheduler's own account of each
// thread is exact, unlike /proc/PID/stat, which counts in steps of 10 ms; what ended threads
// have used is missing, but neither Go's nor Erlang's end.
func cpuTime(pid int) (time.Duration, bool) {
	threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat") // the pattern is right
	var total time.Duration
	for _, path := range threads {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(content), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, false
		}
		total += time.Duration(ns)
	}
	return total, len(threads) > 0
}

// peakMemory returns the largest resident set that a process has had, in bytes; false if that
// cannot be told. What wait(2) says of a child counts the memory of the parent that it was
// forked from, too.
func peakMemory(pid int) (int64, bool) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, false
	}
	_, after, found := strings.Cut(string(content), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(line), " kB"), 10, 64)
	return kilobytes << 10, found && err == nil
}

// addPeak adds the peak of a process to a sample, if it is known.
func (s Sample) addPeak(pid int) {
	if peak, known := peakMemory(pid); known {
		s[colMemory] = float64(peak) / (1 << 20)
	}
}

// meter tells the CPU time that a process uses between two moments.
type meter struct {
	pid   int
	since time.Duration
	known bool
}

func startMeter(pid int) meter {
	m := meter{pid: pid}
	if pid > 0 {
		m.since, m.known = cpuTime(pid)
	}
	return m
}

// read adds the microseconds a message since the start to a sample, if they are known.
func (m meter) read(s Sample, key string, messages int) {
	now, known := cpuTime(m.pid)
	if m.known && known {
		s[key] = (now - m.since).Seconds() * 1e6 / float64(messages)
	}
}

// child is a process of the program itself.
type child struct {
	cmd    *exec.Cmd
	stderr lines
	stdout bytes.Buffer
	ended  chan struct{}
	err    error // after ended
}

// start runs the program itself with standard input, more environment, and arguments.
func (w *world) start(stdin []byte, environment []string, args ...string) (*child, error) {
	return w.startProgram(w.options.Program, stdin, environment, args...)
}

func (w *world) startProgram(program string, stdin []byte, environment []string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	c.cmd.Env = append(w.environment(), environment...)
	c.cmd.Stdin = bytes.NewReader(stdin)
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if err := testserver.StartChild(c.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	go func() { // waits for the child's end
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// environment is the user's own without pgamqp's settings, which the bench chooses.
func (w *world) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PGAMQP_") {
			env = append(env, e)
		}
	}
	if w.caFile != "" {
		env = append(env, "SSL_CERT_FILE="+w.caFile)
	}
	return env
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// wait waits for the end; if ctx ends before, the child is killed.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.ended:
	case <-ctx.Done():
		_ = c.cmd.Process.Kill()
		<-c.ended
		return context.Cause(ctx)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w; it said:\n%s", c.cmd.Args[1], c.err, c.stderr.tail())
	}
	return nil
}

// stop asks the child to end, and waits.
func (c *child) stop(ctx context.Context) error {
	_ = c.cmd.Process.Signal(os.Interrupt) // an error means that it has ended
	return c.wait(ctx)
}

// logEntry is a line of the daemon's log.
type logEntry struct {
	Time    time.Time `json:"time"`
	Msg     string    `json:"msg"`
	Address string    `json:"address"`
}

// find returns the first line of the log with a message.
func (c *child) find(message string) (logEntry, bool) {
	for line := range strings.Lines(c.stderr.text()) {
		var e logEntry
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == message {
			return e, true
		}
	}
	return logEntry{}, false
}

// logged waits for a line of the log with a message.
func (c *child) logged(ctx context.Context, message string) (logEntry, error) {
	for {
		added := c.stderr.added()
		if e, found := c.find(message); found {
			return e, nil
		}
		select {
		case <-added:
		case <-c.ended:
			return logEntry{}, fmt.Errorf("%s has ended: %w; it said:\n%s", c.cmd.Args[1], c.err, c.stderr.tail())
		case <-ctx.Done():
			return logEntry{}, context.Cause(ctx)
		}
	}
}

// lines collects what a process writes.
type lines struct {
	mu      sync.Mutex // guards all below
	written []byte
	more    chan struct{} // closed and replaced with each write; nil if nobody waits
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = append(l.written, p...)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(p), nil
}

// added returns a channel that is closed when something is written from now on.
func (l *lines) added() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.more
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.written)
}

// tail returns the end of what was written.
func (l *lines) tail() string {
	text := l.text()
	return text[max(0, len(text)-2000):]
}
