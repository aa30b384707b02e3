package testserver

import (
	"os/exec"
	"syscall"
)

// StartChild starts a program of the caller's, as the caller's user, so that it is killed
// when this process dies, whatever the cause. The caller waits for it. Another user and another root folder may stand in
// cmd.SysProcAttr; nothing else of it is kept.
func StartChild(cmd *exec.Cmd) error {
	return spawn(cmd, nil, syscall.SIGKILL)
}
