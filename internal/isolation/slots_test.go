package isolation_test

import (
	"context"
	"errors"
	"time"
)

// slots is the server, as one main stream may use it.
type slots struct {
	d   *daemon
	pid int
}

// The server does nothing that was asked for more than tooLate ago, by which time nobody
// has given up waiting.
const (
	tooLate = 5 * time.Second
	giveUp  = 7 * time.Second
)

var (
	errLate     = errors.New("too late")
	errReplaced = errors.New("replaced")
	errInUse    = errors.New("in use")
)

// ask is a command: it takes time to get there, and its answer takes time to come back.
// Whoever gives up waiting does not know whether it was done.
func (s slots) ask(ctx context.Context, do func(w *world) error) error {
	if err := s.d.pause(ctx); err != nil {
		return err // not connected
	}
	connected := time.Now()
	answer := make(chan error, 1)
	go func() {
		_ = s.d.pause(context.Background())
		s.d.w.mu.Lock()
		err := errLate
		if time.Since(connected) <= tooLate {
			err = do(s.d.w)
		}
		s.d.w.mu.Unlock()
		_ = s.d.pause(context.Background())
		answer <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) List(ctx context.Context) ([]int32, error) {
	found := make(chan []int32, 1)
	err := s.ask(ctx, func(w *world) error {
		var out []int32
		for name := range w.slots {
			if name != mainSlot {
				out = append(out, name)
			}
		}
		found <- out
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-found, nil
}

func (s slots) Copy(ctx context.Context, broker int32) error {
	return s.ask(ctx, func(w *world) error {
		if w.slots[mainSlot].reader != s.pid {
			return errReplaced
		}
		w.note("process %d copies the slot for %d", s.pid, broker)
		if w.slots[broker] == nil {
			w.slots[broker] = &slot{confirmed: w.slots[mainSlot].confirmed}
		}
		return nil
	})
}

func (s slots) Drop(ctx context.Context, broker int32) error {
	return s.ask(ctx, func(w *world) error {
		own := w.slots[broker]
		switch {
		case w.slots[mainSlot].reader != s.pid:
			return errReplaced
		case own == nil:
			return nil
		case own.reader != 0:
			return errInUse
		}
		w.note("process %d drops the slot of %d", s.pid, broker)
		delete(w.slots, broker)
		w.check("the slot of broker %d was dropped", broker)
		return nil
	})
}
