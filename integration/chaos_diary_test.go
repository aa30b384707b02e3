package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// diary is what was broken, and when. It is shown when the test fails.
type diary struct {
	t     *testing.T
	began time.Time

	mu    sync.Mutex // guards all below
	lines []string
	count map[string]int // of faults, by name
}

func newDiary(t *testing.T) *diary {
	t.Helper()
	d := &diary{t: t, began: time.Now(), count: make(map[string]int)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was broken:\n%s", strings.Join(d.lines, "\n"))
		}
	})
	return d
}

// note writes a line.
func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.lines = append(d.lines, fmt.Sprintf("%s %7.2fs  %s", now.UTC().Format("15:04:05.000"), now.Sub(d.began).Seconds(), fmt.Sprintf(format, args...)))
}

// fault notes and counts one.
func (d *diary) fault(step int, name string) {
	d.note("%3d %s", step, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count[name]++
}

// faults returns how many faults there were, and of which kinds.
func (d *diary) faults() (total int, kinds string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(d.count)) {
		total += d.count[name]
		parts = append(parts, fmt.Sprintf("%s %d", name, d.count[name]))
	}
	return total, strings.Join(parts, ", ")
}
