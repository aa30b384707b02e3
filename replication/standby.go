package replication

import (
	"context"
	"fmt"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// standbyPause is how often a waiting daemon looks whether the slot is free: it
// bounds the time in which nobody streams after a crash of the other.
const (
	standbyPauseMin = 100 * time.Millisecond
	standbyPauseMax = 300 * time.Millisecond
)

// HeldError says that another process reads the slot.
type HeldError struct {
	Slot string
	PID  string // of the server's process for it
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("slot %q is active for PID %s: another daemon reads it", e.Slot, e.PID)
}

// standBy waits until nobody reads the slot. It keeps its connection and asks the
// slot's row: to try and start each time would cost the server a login and a line in
// its log. A slot that is lost or dropped meanwhile ends it like any start.
func (s *stream) standBy(ctx context.Context, remembered *memory) error {
	wait := backoff.New(standbyPauseMin, standbyPauseMax)
	for s.server.holder != "" {
		s.hooks.waiting(&HeldError{Slot: s.cfg.Slot, PID: s.server.holder})
		if err := wait.Wait(ctx); err != nil {
			return err
		}
		if err := s.lookAgain(ctx, remembered); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) lookAgain(ctx context.Context, remembered *memory) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return s.server.readSlot(ctx, s.conn, s.cfg.Slot, remembered)
}
