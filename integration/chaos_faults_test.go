package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"
)

// fault is one way to break something. run breaks, waits, and mends; it returns an error for what must
// not happen meanwhile. All its choices come from f.random.
type fault struct {
	name    string
	weight  int
	touches []string // what it breaks: two faults of one thing do not happen at the same time
	run     func(f *breakage) error
}

// What faults touch.
const (
	theDaemon   = "daemon"
	thePostgres = "postgres"
	thePath     = "path to postgres"
)

func theNode(node int) string           { return fmt.Sprintf("node %d", node+1) }
func thePathTo(node int) string         { return fmt.Sprintf("path to node %d", node+1) }
func faultsAtOnce() int                 { return 3 }
func pauseBetweenFaults() time.Duration { return 1500 * time.Millisecond }

// breakage is a fault that happens.
type breakage struct {
	*chaos
	ctx    context.Context //nolint:containedctx // lives as long as the fault
	step   int
	random *rand.Rand
}

func (f *breakage) note(format string, args ...any) {
	f.diary.note("%3d   %s", f.step, fmt.Sprintf(format, args...))
}

// hold waits for a time that is drawn: as long as something stays broken.
func (f *breakage) hold(shortest, longest time.Duration) {
	pause(f.ctx, shortest+time.Duration(f.random.Int64N(int64(longest-shortest)+1)))
}

// faults is what can happen.
func (c *chaos) faults() []fault {
	all := slices.Concat(daemonFaults(), postgresFaults(), networkFaults())
	for node := range c.nodes {
		all = append(all, rabbitFaults(node)...)
	}
	for broker := range c.brokers {
		all = append(all, brokerFaults(broker+1, c.brokers[broker].node)...)
	}
	if only := os.Getenv(chaosFaults); only != "" {
		pattern := regexp.MustCompile(only)
		all = slices.DeleteFunc(all, func(f fault) bool { return !pattern.MatchString(f.name) })
	}
	if len(all) == 0 {
		c.t.Fatalf("no fault has a name that matches %s", chaosFaults)
	}
	return all
}

// schedule draws one fault after the other. The choices of a run depend on its seed alone, however long things
// take: a fault that was drawn is waited for until what it touches is whole.
type schedule struct {
	c      *chaos
	random *rand.Rand
	faults []fault
	step   int
	whole  map[string]*sync.Mutex // held while broken
}

func (c *chaos) newSchedule() *schedule {
	s := &schedule{c: c, random: rand.New(rand.NewPCG(c.seed, 0)), faults: c.faults(), whole: make(map[string]*sync.Mutex)}
	for _, f := range s.faults {
		for _, thing := range f.touches {
			s.whole[thing] = new(sync.Mutex)
		}
	}
	return s
}

// draw returns the next fault, by weight.
func (s *schedule) draw() fault {
	total := 0
	for _, f := range s.faults {
		total += f.weight
	}
	n := s.random.IntN(total)
	for _, f := range s.faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("weights do not add up")
}

// run breaks one thing after the other, some at the same time, until the time is over, and waits until all is mended.
func (s *schedule) run(ctx context.Context, until time.Duration) {
	begin, cancel := context.WithTimeout(ctx, until)
	defer cancel()
	running := make(chan struct{}, faultsAtOnce())
	var ended sync.WaitGroup
	defer ended.Wait()
	for {
		pause(begin, time.Duration(s.random.Int64N(int64(pauseBetweenFaults()))))
		if begin.Err() != nil {
			return
		}
		s.step++
		f := s.draw()
		b := &breakage{chaos: s.c, ctx: ctx, step: s.step, random: rand.New(rand.NewPCG(s.c.seed, uint64(s.step)))}
		running <- struct{}{}
		slices.Sort(f.touches)
		for _, thing := range f.touches {
			s.whole[thing].Lock()
		}
		s.c.diary.fault(b.step, f.name)
		ended.Go(func() {
			defer func() {
				for _, thing := range f.touches {
					s.whole[thing].Unlock()
				}
				<-running
			}()
			if err := f.run(b); err != nil {
				b.note("%s: %v", f.name, err)
				s.c.t.Errorf("%s: %v", f.name, err)
			}
			b.note("%s is over", f.name)
		})
	}
}
