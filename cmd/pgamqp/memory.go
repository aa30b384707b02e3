package main

import (
	"os"
	"runtime/debug"
)

// memoryLimit is how much memory the runtime of the daemon should do with. For each broker
// that is four times what its window holds, as each large message is there as it was
// received, as it was decoded, as it waits for its confirm, and on its way to the socket; and
// 16 MiB, which with the program itself and what is collected late makes 40.
func memoryLimit(windowBytes int64, brokers int) int64 {
	return 16<<20 + 4*windowBytes*int64(max(1, brokers))
}

// limitMemory makes the garbage collector keep to memoryLimit. Left alone it lets the heap
// grow to twice of what is in use, which with large messages is a lot; with small ones the
// limit is far away and changes nothing. A message that is larger than the window takes
// more all the same. GOMEMLIMIT of the environment stands above it.
func (d *daemon) limitMemory(brokers int) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := memoryLimit(d.cfg.WindowBytes, brokers)
	if d.memoryLimit.Swap(limit) != limit {
		debug.SetMemoryLimit(limit)
	}
}
