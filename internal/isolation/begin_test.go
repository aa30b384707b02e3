package isolation_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/isolation"
)

// script is a server and a main stream that do as a test says. Its only broker is 1.
type script struct {
	there     []int32 // who has a slot
	lost      bool    // the answer to Drop: it is done, and nobody hears of it
	dropped   chan struct{}
	stuck     bool
	confirmed atomic.Uint64 // of the broker's own stream
	begun     []pglogrepl.LSN
	same      []bool
	changed   []bool
}

func (s *script) List(ctx context.Context) ([]int32, error) { return slices.Clone(s.there), ctx.Err() }

func (s *script) Copy(context.Context, int32) error {
	s.there = []int32{1}
	return nil
}

func (s *script) Drop(ctx context.Context, _ int32) error {
	s.there = nil
	if s.lost {
		close(s.dropped)
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *script) Begin(from pglogrepl.LSN, _ []int32, sameHistory bool) {
	s.begun, s.same = append(s.begun, from), append(s.same, sameHistory)
}

func (s *script) Stuck(time.Duration) []int32 {
	if s.stuck {
		return []int32{1}
	}
	return nil
}

func (s *script) Detach(int32, time.Duration) bool {
	s.stuck = false
	return true
}

func (*script) Cut(int32) decoder.Position { return decoder.Position{} }
func (*script) Undo(int32)                 {}
func (*script) Join(int32)                 {}
func (*script) Received() pglogrepl.LSN    { return 0x100 }

// scriptLane is the stream of the broker's own slot: it works once the script lets it confirm
// something.
type scriptLane struct{ *script }

func (scriptLane) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
func (l scriptLane) Confirmed() pglogrepl.LSN { return pglogrepl.LSN(l.confirmed.Load()) }
func (l scriptLane) Working() bool            { return l.confirmed.Load() >= 0x100 }

// coordinate makes a Coordinator for a script, and what it logs.
func coordinate(s *script) (*isolation.Coordinator, *bytes.Buffer) {
	var log bytes.Buffer
	return isolation.New(isolation.Config{
		Main: s, Lane: func(int32) isolation.Lane { return scriptLane{s} }, Abandoned: errAbandoned, After: time.Second,
		Changed: func(_ int32, detached bool) { s.changed = append(s.changed, detached) },
	}, slog.New(slog.NewTextHandler(&log, nil))), &log
}

// TestMissingSlotOfADetachedBrokerIsNotPassedOverInSilence unless it is known that nothing is
// lost with it: broker 1 was detached when the main slot was confirmed up to 0/50, and had
// confirmed up to 0/60 itself.
func TestMissingSlotOfADetachedBrokerIsNotPassedOverInSilence(t *testing.T) {
	for name, c := range map[string]struct {
		next isolation.Start
		lost bool
		says string // in the log
	}{
		"failover":                                 {next: isolation.Start{Confirmed: 0x80, History: "1-2"}, lost: true},
		"lost WAL":                                 {next: isolation.Start{Confirmed: 0x80, History: "1-1", LostWAL: true}, lost: true},
		"failover, and another daemon was here":    {next: isolation.Start{Confirmed: 0x80, History: "1-2", Others: true}, says: "level=ERROR"},
		"another daemon was here":                  {next: isolation.Start{Confirmed: 0x80, History: "1-1", Others: true}, says: "level=INFO"},
		"nobody was here":                          {next: isolation.Start{Confirmed: 0x80, History: "1-1"}, says: "level=ERROR"},
		"failover to where the main slot keeps it": {next: isolation.Start{Confirmed: 0x60, History: "1-2"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{stuck: true}
				co, log := coordinate(s)
				first := isolation.Start{Confirmed: 0x50, Remembered: 0x50, History: "1-1"}
				end, _, err := co.Begin(t.Context(), s, first)
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(2 * time.Second)
				s.confirmed.Store(0x60)
				<-time.After(2 * time.Second)
				end()
				s.there = nil
				log.Reset()
				c.next.Remembered = 0x90
				end, forget, err := co.Begin(t.Context(), s, c.next)
				var gone *isolation.LostError
				if errors.As(err, &gone) != c.lost {
					t.Fatalf("error %v", err)
				}
				if c.lost {
					if want := (isolation.LostError{Broker: 1, From: 0x60, To: 0x80}); *gone != want {
						t.Errorf("lost %+v, want %+v", *gone, want)
					}
					return
				}
				end()
				if !forget || s.begun[1] != c.next.Confirmed {
					t.Errorf("forget is %v, the stream starts at %s", forget, s.begun[1])
				}
				if !slices.Equal(s.changed, []bool{true, false}) {
					t.Errorf("changes %v", s.changed)
				}
				if got := log.String(); (got == "") != (c.says == "") || !strings.Contains(got, c.says) ||
					c.says != "" && !strings.Contains(got, "broker=1 from=0/60 to=0/80") {
					t.Errorf("log %q, want %q", got, c.says)
				}
			})
		})
	}
}

// TestSlotThatWasDroppedUnheardLosesNothing: the broker had all that was passed over, the
// main stream ended before the answer came, and a standby was promoted.
func TestSlotThatWasDroppedUnheardLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{there: []int32{1}, lost: true, dropped: make(chan struct{})}
		s.confirmed.Store(0x100)
		c, log := coordinate(s)
		end, _, err := c.Begin(t.Context(), s, isolation.Start{Confirmed: 0x50, History: "1-1"})
		if err != nil {
			t.Fatal(err)
		}
		<-s.dropped
		end()
		log.Reset()
		if end, _, err = c.Begin(t.Context(), s, isolation.Start{Confirmed: 0x200, History: "1-2"}); err != nil {
			t.Fatal(err)
		}
		end()
		if got := log.String(); got != "" {
			t.Errorf("log %q", got)
		}
	})
}

// TestPositionsOfAServerThatLostWALMeanNothing although its history is the same.
func TestPositionsOfAServerThatLostWALMeanNothing(t *testing.T) {
	s := &script{}
	c, _ := coordinate(s)
	for _, lost := range []bool{false, false, true, false} {
		end, _, err := c.Begin(t.Context(), s, isolation.Start{Confirmed: 0x50, History: "1-1", LostWAL: lost})
		if err != nil {
			t.Fatal(err)
		}
		end()
	}
	if want := []bool{false, true, false, true}; !slices.Equal(s.same, want) {
		t.Errorf("same history %v, want %v", s.same, want)
	}
}
