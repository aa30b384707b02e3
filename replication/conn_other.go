//go:build !linux

package replication

import "time"

// setUserTimeout does nothing where the kernel has no such option: the write
// deadline and TCP keepalive notice a dead path there, a little later.
func setUserTimeout(int, time.Duration) error { return nil }
