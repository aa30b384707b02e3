//go:build unix && !linux

package testserver

import "syscall"

// childAttributes makes a child lead its own process group. Only Linux can also tie the
// child's life to ours; elsewhere a server outlives a parent that was killed.
func childAttributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
