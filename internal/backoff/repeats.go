package backoff

import (
	"strings"
	"time"
)

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
// The port of this end of a connection, which is another one each time, makes no difference.
func (r *Repeats) Worth(text string, now time.Time) bool {
	text = withoutLocalAddress(text)
	if text == r.last && now.Sub(r.at) < repeatEvery {
		return false
	}
	r.last, r.at = text, now
	return true
}

// withoutLocalAddress takes "127.0.0.1:41234->" out of errors of the network such as "read tcp 127.0.0.1:41234->127.0.0.1:5672: EOF".
func withoutLocalAddress(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "->")
		if !found {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(before[:strings.LastIndexByte(before, ' ')+1])
		text = after
	}
}
