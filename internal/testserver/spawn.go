package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// reapDelay bounds how long Wait reads the output of descendants that outlive a process.
const reapDelay = 5 * time.Second

type spawnJob struct {
	cmd    *exec.Cmd
	result chan<- error
}

// spawner hands commands to the one thread that starts all children.
//
//nolint:gochecknoglobals // the parent-death signal belongs to a thread, so the process needs exactly one spawning thread
var spawner = sync.OnceValue(func() chan<- spawnJob {
	jobs := make(chan spawnJob)
	go spawnLoop(jobs)
	return jobs
})

// spawnLoop starts every child of this package and never returns.
//
// Linux sends the parent-death signal when the thread that forked ends, not when its
// process does. Go ends threads when it likes, so a server started from an ordinary
// goroutine could be shot down at random. This goroutine owns its thread for ever.
func spawnLoop(jobs <-chan spawnJob) {
	runtime.LockOSThread()
	for job := range jobs {
		job.result <- job.cmd.Start()
	}
}

// spawn starts cmd as user as, in a process group of its own, so that a Ctrl-C in the
// terminal reaches only us; the kernel sends it onDeath when this process dies.
func spawn(cmd *exec.Cmd, as *account, onDeath syscall.Signal) error {
	attributes := childAttributes(onDeath)
	if given := cmd.SysProcAttr; given != nil {
		attributes.Chroot, attributes.Credential = given.Chroot, given.Credential
	}
	cmd.SysProcAttr = attributes
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	cmd.WaitDelay = reapDelay
	result := make(chan error)
	spawner() <- spawnJob{cmd, result}
	return <-result
}

// process is a running child. Its methods may be called from any goroutine.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once the child is reaped; err is set before
	err  error
}

// launch starts a server, which writes to log. cmd's output must not be set yet.
func launch(name string, cmd *exec.Cmd, log logFile, as *account, onDeath syscall.Signal) (*process, error) {
	out, file, err := log.open()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := spawn(cmd, as, onDeath); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), file.Close())
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = errors.Join(cmd.Wait(), file.Close())
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends s; a process that has ended already is not an error.
func (p *process) signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	if err == nil || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return fmt.Errorf("send %s to %s (pid %d): %w", s, p.name, p.pid(), err)
}

// end sends s and waits for the process. After limit it sends force, waits again and
// reports that it had to.
func (p *process) end(s syscall.Signal, limit time.Duration, force syscall.Signal) error {
	if err := p.signal(s); err != nil {
		return err
	}
	if p.ended(limit) {
		return nil
	}
	if err := p.signal(force); err != nil {
		return err
	}
	if !p.ended(limit) {
		return fmt.Errorf("stop %s (pid %d): still there %s after %s", p.name, p.pid(), limit, force)
	}
	return fmt.Errorf("stop %s: still there %s after %s, ended with %s", p.name, limit, s, force)
}

// ended waits at most limit for the process to end.
func (p *process) ended(limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// runTool runs a command to its end and returns what it printed. The error holds the output too.
func runTool(cmd *exec.Cmd, as *account) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := spawn(cmd, as, syscall.SIGKILL)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("run %s: %w: %s", cmd.Path, err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// await polls ready until it says true, the process p ends or ctx does. p may be nil.
func await(ctx context.Context, p *process, every time.Duration, ready func() bool) error {
	var gone <-chan struct{}
	if p != nil {
		gone = p.done
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ready() {
			return nil
		}
		select {
		case <-tick.C:
		case <-gone:
			return fmt.Errorf("%s ended by itself: %w", p.name, exitError(p))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// exitError names how a process ended, also when it ended well.
func exitError(p *process) error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// environment is ours without the variables that would steer a server elsewhere.
func environment(add ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		switch {
		case strings.HasPrefix(kv, "PG"), strings.HasPrefix(kv, "RABBITMQ_"), strings.HasPrefix(kv, "ERL_"),
			strings.HasPrefix(kv, "LC_"), strings.HasPrefix(kv, "LANG"), strings.HasPrefix(kv, "NOTIFY_SOCKET="):
		default:
			env = append(env, kv)
		}
	}
	return append(env, add...)
}
