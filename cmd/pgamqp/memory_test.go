package main

import (
	"slices"
	"testing"
)

func TestMemoryFollowsWhatTheWindowsHold(t *testing.T) {
	var limits []int64
	m := newMemory(32 << 20)
	m.set = func(limit int64) { limits = append(limits, limit) }
	m.serve(1)
	for _, more := range []int{
		muchHeld - 1,                      // still little
		1,                                 // much
		1 << 20,                           // still
		-(1 << 20), littleHeld - muchHeld, // not yet little
		-1, // little
		1, -1,
		muchHeld, -muchHeld,
	} {
		m.hold(more)
	}
	large := int64(12<<20 + 4*32<<20)
	if want := []int64{smallMemory, large, smallMemory, large, smallMemory}; !slices.Equal(limits, want) {
		t.Errorf("limits %v, want %v", limits, want)
	}
	limits = nil
	m.hold(muchHeld)
	m.serve(3)
	if want := []int64{large, 12<<20 + 3*4*32<<20}; !slices.Equal(limits, want) {
		t.Errorf("limits %v, want %v", limits, want)
	}
}
