package main

import (
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// As long as all windows together hold little, the runtime should do with smallMemory: with the
// program itself, and what is collected late, that makes less than 40 MiB. They hold much from
// muchHeld on, until it is less than littleHeld again.
const (
	smallMemory = 24 << 20
	muchHeld    = 8 << 20
	littleHeld  = 4 << 20
)

// largeMemory is how much memory the runtime should do with otherwise. For each broker that is
// four times what its window holds, as each large message is there as it was received, as it
// was decoded, as it waits for its confirm, and on its way to the socket; and 16 MiB.
func largeMemory(windowBytes int64, brokers int) int64 {
	return 12<<20 + 4*windowBytes*int64(max(1, brokers))
}

// memory makes the garbage collector keep to these limits. Left alone it lets the heap grow to
// twice of what is in use. A message that is larger than the window takes more all the same.
// GOMEMLIMIT of the environment stands above it.
type memory struct {
	windowBytes int64
	set         func(limit int64) // debug.SetMemoryLimit, or a test's

	held atomic.Int64 // bytes in all windows
	much atomic.Bool  // the larger limit holds

	mu      sync.Mutex // guards all below
	brokers int
	limit   int64 // as it was set last
}

func newMemory(windowBytes int64) *memory {
	m := &memory{windowBytes: windowBytes, set: func(limit int64) { debug.SetMemoryLimit(limit) }}
	if os.Getenv("GOMEMLIMIT") != "" {
		m.set = func(int64) {}
	}
	return m
}

// hold notes that windows hold so many bytes more, or less. It does not block.
func (m *memory) hold(more int) {
	held, much := m.held.Add(int64(more)), m.much.Load()
	if much && held < littleHeld || !much && held >= muchHeld {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.much.Store(!much)
		m.adjust()
	}
}

// serve notes how many brokers there are.
func (m *memory) serve(brokers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.brokers = brokers
	m.adjust()
}

// adjust sets the limit if it is another one. The lock is held.
func (m *memory) adjust() {
	limit := int64(smallMemory)
	if m.much.Load() {
		limit = largeMemory(m.windowBytes, m.brokers)
	}
	if limit != m.limit {
		m.limit = limit
		m.set(limit)
	}
}
