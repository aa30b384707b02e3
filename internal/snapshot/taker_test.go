package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

// What makes a chunk useless may last, and the one who sets the snapshot back wakes the taker each time.
func TestTakerWaitsBeforeItReadsAChunkAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taker := New(Config{}, slog.New(slog.DiscardHandler))
		for range 20 {
			before := time.Now()
			taker.Wake()
			taker.pause(t.Context(), fmt.Errorf("%w: %w", errInVain, errAltered))
			if spent := time.Since(before); spent < 100*time.Millisecond {
				t.Fatalf("it waited %v", spent)
			}
		}
		before := time.Now()
		taker.Wake() // the broker is back, say
		taker.pause(t.Context(), errDetached)
		if spent := time.Since(before); spent != 0 {
			t.Errorf("woken it waited %v", spent)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		taker.pause(ctx, errInVain)
	})
}

func TestWhatEndsASnapshot(t *testing.T) {
	for _, c := range []struct {
		err   error
		final bool
		text  string
	}{
		{errUnrouted, true, "no route takes rows"},
		{fmt.Errorf("%w of t: why", catalog.ErrNoSnapshot), true, "no snapshot can be taken of t: why"},
		{fmt.Errorf("read t: %w", &pgconn.PgError{Code: "42501", Message: "query would be affected by row-level security"}), true, "BYPASSRLS"},
		{errDetached, false, "is detached"},
		{errors.New("broken pipe"), false, "broken pipe"},
	} {
		if text, final := outlook(7, c.err); final != c.final || !strings.Contains(text.Error(), c.text) {
			t.Errorf("%v: final %t, %q", c.err, final, text)
		}
	}
}
