package integration

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pglogrepl"
)

// detachAfter is the daemon's --detach-after, shorter than a broker is away here.
const detachAfter = 2 * time.Second

// daemons is the supervisor: it starts daemons, ends them, and notices one that ends by itself.
// current and standby are used by one fault at a time, and by the test between faults.
type daemons struct {
	c       *chaos
	current *daemon
	standby *daemon // waits for the slot, or nil

	mu  sync.Mutex // guards all
	all []*daemon  // in the order of their starts
}

// launch starts a daemon and waits for nothing.
func (s *daemons) launch() *daemon {
	address := strings.Replace(s.c.url(), fmt.Sprintf(":%d/", s.c.postgres.Port()), fmt.Sprintf(":%d/", s.c.path.port()), 1)
	args := []string{
		"run", "--database-url", address, "--slot", s.c.slot, "--listen", "127.0.0.1:0",
		"--window-messages", "400",
	}
	args = append(args, "--detach-after", detachAfter.String())
	d := launch(s.c.t, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.quiet = true // report does it, for those that matter
	s.all = append(s.all, d)
	return d
}

// promote makes the standby the current one, or starts another.
func (s *daemons) promote() {
	s.current, s.standby = s.standby, nil
	if s.current == nil {
		s.current = s.launch()
	}
}

// end ends a daemon by a signal and judges how.
func (s *daemons) end(d *daemon, by syscall.Signal) error {
	if !d.running() {
		return fmt.Errorf("daemon %d has ended by itself, with exit code %d", d.cmd.Process.Pid, d.cmd.ProcessState.ExitCode())
	}
	if by == syscall.SIGTERM {
		s.waitStarted(d)
	}
	d.signal(by)
	if code := d.wait(stopLimit); by == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("daemon %d: exit code %d after SIGTERM", d.cmd.Process.Pid, code)
	}
	return nil
}

// waitStarted waits until a daemon says something: before, it does not yet know what to do with a signal.
func (s *daemons) waitStarted(d *daemon) {
	ctx, cancel := context.WithTimeout(s.c.t.Context(), startLimit)
	defer cancel()
	for ctx.Err() == nil && d.running() && d.log.String() == "" {
		pause(ctx, 10*time.Millisecond)
	}
}

// check returns an error for a daemon that should run and does not, and starts another.
func (s *daemons) check() error {
	if s.current.running() {
		return nil
	}
	code := s.current.cmd.ProcessState.ExitCode()
	s.promote()
	return fmt.Errorf("the daemon has ended by itself, with exit code %d", code)
}

// events reads from the logs when something may have been sent again, since a time.
func (s *daemons) events(since time.Time) []event {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	var events []event
	for i, d := range all {
		for line := range strings.Lines(d.log.String()) {
			if e, ok := parseEvent(line); ok && !e.at.Before(since) {
				e.daemon = i
				events = append(events, e)
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	return events
}

// event is what a daemon logs when it sends again what has no verdict yet: it reads the slot,
// has connected to a broker, or opens a channel that was closed for a refusal.
type event struct {
	daemon int
	at     time.Time
	from   pglogrepl.LSN // the slot's position, if it reads the slot
}

var (
	resending = regexp.MustCompile(`^time=(\S+) .*msg=(streaming|"connected to broker"|"broker refused a message")(.*)`)
	streamLSN = regexp.MustCompile(` lsn=(\S+)`)
)

func parseEvent(line string) (event, bool) {
	match := resending.FindStringSubmatch(line)
	if match == nil {
		return event{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, match[1])
	if err != nil {
		return event{}, false
	}
	e := event{at: at}
	if lsn := streamLSN.FindStringSubmatch(match[3]); match[2] == "streaming" && lsn != nil {
		e.from, err = pglogrepl.ParseLSN(lsn[1])
	}
	return e, err == nil
}

// report logs what the daemons said since a time.
func (s *daemons) report(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all {
		lines := strings.Split(d.log.String(), "\n")
		first := slices.IndexFunc(lines, func(line string) bool {
			at, found := strings.CutPrefix(line, "time=")
			if !found {
				return false
			}
			at, _, _ = strings.Cut(at, " ")
			t, err := time.Parse(time.RFC3339Nano, at)
			return err == nil && !t.Before(since)
		})
		if first >= 0 {
			lines = lines[first:]
			const limit = 120
			cut := max(0, len(lines)-limit)
			s.c.t.Logf("daemon %d said, %d lines left out:\n%s", d.cmd.Process.Pid, cut, strings.Join(lines[cut:], "\n"))
		}
	}
}
