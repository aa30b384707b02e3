package main

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// pathAllocations is how many allocations a message costs on its whole way, the libraries
// of both protocols included: of the usual one, with one message a transaction and one
// confirm for 16.
const pathAllocations = 37.1

// cost is what n messages have cost, each.
type cost struct{ allocations, bytes, nanoseconds, cpu float64 }

func (p *wholePath) measure(n int64) cost {
	p.tb.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime(p.tb)
	sent, began := p.sent, time.Now()
	p.send(n)
	took := time.Since(began)
	cpu = cpuTime(p.tb) - cpu
	runtime.ReadMemStats(&after)
	count := float64(p.sent - sent)
	return cost{
		float64(after.Mallocs-before.Mallocs) / count,
		float64(after.TotalAlloc-before.TotalAlloc) / count,
		float64(took) / count,
		float64(cpu) / count,
	}
}

// cpuTime is what the process has used so far, of all processors: other than the time that
// has passed, it says something on a machine that is busy with something else.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestMessageAllocatesNoMoreThanWhatIsRecorded(t *testing.T) {
	p := newPath(t, usual())
	got := p.measure(8_000).allocations
	for range 4 { // what is done once in a while counts for more where a message takes longer
		if got > pathAllocations+1 {
			got = min(got, p.measure(8_000).allocations)
		}
	}
	if got > pathAllocations+1 {
		t.Errorf("a message costs %.2f allocations, recorded are %.1f; see go test -bench Path -memprofile", got, pathAllocations)
	}
	t.Logf("%.2f allocations a message", got)
}

func BenchmarkPath(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*load)
	}{
		{"usual", func(*load) {}},
		{"transaction=1000", func(l *load) { l.perTransaction = 1000 }},
		{"body=2000", func(l *load) { l.body = 2000 }},
		{"exchanges=50", func(l *load) { l.exchanges = 50 }},
		{"window=256", func(l *load) { l.setWindow(256) }},
		{"window=16384", func(l *load) { l.setWindow(16384) }},
		{"confirm=16", func(l *load) { l.ackEvery = 16 }},
		{"confirm=512", func(l *load) { l.ackEvery = 512 }},
		{"idle broker", func(l *load) { l.backlog = 0 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := usual()
			c.change(&l)
			p := newPath(b, l)
			b.ResetTimer()
			got := p.measure(int64(b.N))
			b.StopTimer()
			b.ReportMetric(got.allocations, "allocs/msg")
			b.ReportMetric(got.bytes, "B/msg")
			b.ReportMetric(got.nanoseconds, "ns/msg")
			b.ReportMetric(got.cpu, "cpu-ns/msg")
			b.ReportMetric(0, "ns/op")
		})
	}
}
