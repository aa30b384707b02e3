package backoff

import "time"

// repeatEvery is how often a message that stays the same is worth repeating.
const repeatEvery = 30 * time.Second

// Repeats keeps a log readable while something is tried again and again with the same
// result. The zero value is ready; it belongs to the goroutine that tries.
type Repeats struct {
	last string
	at   time.Time
}

// Worth reports whether a text should be logged now: it differs from the last one that was,
// or that was half a minute ago.
func (r *Repeats) Worth(text string, now time.Time) bool {
	if text == r.last && now.Sub(r.at) < repeatEvery {
		return false
	}
	r.last, r.at = text, now
	return true
}
