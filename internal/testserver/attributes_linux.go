package testserver

import "syscall"

// childAttributes makes a child lead its own process group and die with us.
func childAttributes(onDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: onDeath}
}
