package integration

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// How `make chaos` says what it wants.
const (
	chaosSeed   = "PGAMQP_CHAOS_SEED"   // of all choices; a random one if empty
	chaosTime   = "PGAMQP_CHAOS_TIME"   // for which things are broken, 30s if empty
	chaosFaults = "PGAMQP_CHAOS_FAULTS" // a regular expression for the names of faults, all if empty
)

const (
	chaosRound  = 20 * time.Second // after which everything is mended, awaited and compared
	settleLimit = 2 * time.Minute
)

// TestChaos breaks everything around the program, and the program itself, while applications publish, and then looks
// for what was lost, made up, repeated without a reason, or out of order. It runs on servers of its own.
func TestChaos(t *testing.T) {
	seed, length := chaosOptions(t)
	fmt.Fprintf(os.Stderr, "chaos: seed %d for %s\n", seed, length)
	hangs := time.AfterFunc(length+10*time.Minute, func() { panic("the run hangs") }) // shows all goroutines
	defer hangs.Stop()
	c := newChaos(t, seed)
	run := &chaosRun{
		chaos: c, history: c.history(), checker: newChecker(),
		schedule: c.newSchedule(),
	}
	t.Cleanup(run.report)
	c.daemons.promote()
	c.daemons.current.waitReady()
	c.sampler = c.startSampler()
	run.settle() // with a connection to each broker
	goroutines := c.daemons.current.metric("go_goroutines")
	const shortest = 5 * time.Second
	for end := time.Now().Add(length); !t.Failed() && (run.rounds == 0 || time.Until(end) > shortest); {
		run.round(min(chaosRound, time.Until(end)))
	}
	if !t.Failed() {
		c.sampler.stop()
		c.checkEnd(goroutines)
	}
}

func chaosOptions(t *testing.T) (seed uint64, length time.Duration) {
	t.Helper()
	seed, length = rand.Uint64(), 30*time.Second
	var err error
	if text := os.Getenv(chaosSeed); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", chaosSeed, err)
		}
	}
	if text := os.Getenv(chaosTime); text != "" {
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", chaosTime, err)
		}
	}
	return seed, length
}

// chaosRun is the course of a run: rounds, each of which ends with everything mended, delivered and compared.
type chaosRun struct {
	*chaos
	history  *history
	checker  *checker
	schedule *schedule

	rounds                        int
	roundBegan                    time.Time
	lastEnd                       pglogrepl.LSN // of the units that were read from history
	samples                       int           // that belong to earlier rounds
	committed, rolledBack, failed int
	emitted, rows                 int
	deadLetters                   int
}

// round is one of them, with faults for so long.
func (run *chaosRun) round(length time.Duration) {
	run.t.Helper()
	run.rounds++
	run.roundBegan = time.Now()
	run.diary.note("round %d", run.rounds)
	l := run.startSessions(loadOptions{
		sessions: 4, pause: 25 * time.Millisecond, seed: run.seed + uint64(run.rounds),
		transaction: run.chaosLoad(run.rounds), leave: &run.leave,
	})
	run.schedule.run(run.t.Context(), length)
	if err := run.daemons.check(); err != nil {
		run.t.Error(err)
	}
	l.stop()
	committed, rolledBack, failed := l.counts()
	run.committed, run.rolledBack, run.failed = run.committed+committed, run.rolledBack+rolledBack, run.failed+failed
	run.settle()
	run.compare()
}

// settle waits until everything is delivered and no broker is detached.
func (run *chaosRun) settle() {
	run.t.Helper()
	began := time.Now()
	ctx := withDeadline(run.t, settleLimit)
	var err error
	for done := false; !done; {
		if ctx.Err() != nil {
			run.t.Fatalf("not all is delivered %s after everything was mended: %v", time.Since(began).Round(time.Second), err)
		}
		err = run.withSession(ctx, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `select amqp.wait_delivered("timeout" => '5s') and not exists (
				select from pg_replication_slots where starts_with(slot_name, $1 || '_broker_'))`, run.slot).Scan(&done)
		})
		if !done {
			pause(ctx, 50*time.Millisecond)
		}
	}
	run.diary.note("all is delivered, %s after everything was mended", time.Since(began).Round(time.Millisecond))
}

// compare takes everything out of the queues and judges it.
func (run *chaosRun) compare() {
	run.t.Helper()
	samples := run.sampler.all()
	r := &round{samples: samples[run.samples:], first: run.samples, came: run.drained.take(), letters: run.letterNames()}
	run.samples = len(samples)
	for broker := range run.brokers {
		for _, queue := range chaosQueues() {
			at := place{broker + 1, queue}
			r.came[at] = append(r.came[at], run.empty(at)...)
		}
	}
	r.emissions, run.lastEnd = run.history.emissions(run.lastEnd)
	r.buried = run.buried()
	r.troubles = slices.Concat(run.troubles.take(), troublesOf(run.daemons.events(run.roundBegan.Add(-5*time.Second))))
	run.emitted += len(r.emissions)
	for _, e := range r.emissions {
		if e.row {
			run.rows++
		}
	}
	run.deadLetters += len(r.buried)
	run.checker.judge(r)
	if said := run.checker.report(); said != "" {
		run.t.Errorf("round %d:\n%s", run.rounds, said)
	}
}

// empty takes all out of a queue.
func (run *chaosRun) empty(at place) []amqp.Delivery {
	run.t.Helper()
	var got []amqp.Delivery
	ctx := withDeadline(run.t, sqlLimit)
	err := run.withChannel(ctx, at.broker, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		last := fmt.Sprintf("last of round %d", run.rounds)
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", at.queue, false, false, amqp.Publishing{Type: last, DeliveryMode: amqp.Persistent})
		if err != nil {
			return err
		}
		if ok, err := confirm.WaitContext(ctx); !ok || err != nil {
			return errors.Join(err, fmt.Errorf("queue %s of broker %d does not take a mark", at.queue, at.broker))
		}
		got = consumeOn(run.t, ch, at.queue).until(last, func(got []amqp.Delivery) bool {
			return len(got) > 0 && got[len(got)-1].Type == last
		})
		return nil
	})
	if err != nil {
		run.t.Fatal(err)
	}
	return got[:len(got)-1]
}

// report says how the run went, well or not.
func (run *chaosRun) report() {
	if run.t.Failed() {
		run.daemons.report(run.roundBegan)
	}
	faults, kinds := run.diary.faults()
	fmt.Fprintf(os.Stderr, "chaos: seed %d: PostgreSQL %d, %d rounds, %d faults; %d transactions committed, %d rolled back, %d cut off; "+
		"%d messages committed, %d of them rows, %d delivered, %d of them again, %d times dead letters; %d marks; complaints: %d\n  %s\n",
		run.seed, run.postgres.Version(), run.rounds, faults, run.committed, run.rolledBack, run.failed, run.emitted, run.rows, run.checker.delivered,
		run.checker.repeated, run.deadLetters, run.checker.marks, len(slices.Collect(maps.Keys(run.checker.complaints))), kinds)
}

// troubles collects from faults.
type troubles struct {
	mu  sync.Mutex // guards all
	all []trouble
}

func (s *troubles) add(t trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, t)
}

func (s *troubles) take() []trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// troublesOf turns what the daemons have logged into troubles. What a daemon sends again was not confirmed when it
// last had the slot: had another one taken it over since, the slot may be further.
func troublesOf(events []event) []trouble {
	var all []trouble
	for i, e := range events {
		t := trouble{began: e.at, ended: e.at, times: 1, from: e.from}
		for j := i - 1; e.from == 0 && j >= 0 && (events[j].daemon != e.daemon || events[j].from == 0); j-- {
			if from := events[j].from; events[j].daemon != e.daemon && from != 0 && (t.from == 0 || from < t.from) {
				t.from = from
			}
		}
		all = append(all, t)
	}
	return all
}
