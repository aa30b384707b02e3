package publisher

import (
	"sync"
	"time"
)

// wait is what the one call of Publish waits for, when that is the database: nothing behind
// its message goes on meanwhile, whatever its broker.
type wait struct {
	mu    sync.Mutex // guards all below
	since time.Time  // zero: it does not wait
	why   error
}

// begin notes that it begins to wait, and for what.
func (w *wait) begin(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.why = time.Now(), why
}

// failed notes why it still waits, if it does.
func (w *wait) failed(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.since.IsZero() {
		w.why = why
	}
}

func (w *wait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.why = time.Time{}, nil
}

// Waits returns since when Publish has waited for the database, and for what; zero if it
// does not.
func (p *Publisher) Waits() (since time.Time, why error) { //nolint:revive // the error is a fact here, not a result
	p.wait.mu.Lock()
	defer p.wait.mu.Unlock()
	return p.wait.since, p.wait.why
}
