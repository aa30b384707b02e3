package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// suspendLimit is for a machine that has much else to do.
const suspendLimit = 30 * time.Second

// StartChild starts a program of the caller's, as the caller's user, so that it is killed
// when this process dies, whatever the cause. The caller waits for it. Another user and another root folder may stand in
// cmd.SysProcAttr; nothing else of it is kept.
func StartChild(cmd *exec.Cmd) error {
	return spawn(cmd, nil, syscall.SIGKILL)
}

// Suspend sends SIGSTOP and returns when the process stands still: a thread that waits for a processor stops only when
// it gets one, and until then others go on. SIGCONT ends it. A process that has ended already is not an error.
func Suspend(p *os.Process) error {
	err := p.Signal(syscall.SIGSTOP)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), suspendLimit)
		defer cancel()
		err = await(ctx, nil, time.Millisecond, func() bool { return suspended(p.Pid) })
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("suspend process %d: %w", p.Pid, err)
	}
	return nil
}
