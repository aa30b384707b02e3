package publisher

import (
	"bytes"
	"log/slog"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestO08DeadLettersAreALineForEachReasonAndHalfMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newLetterLog(slog.New(slog.NewTextHandler(&out, nil)))
		add := func(n int, reason Reason, id string) {
			for range n {
				l.add(&DeadLetter{Reason: reason, MessageID: id})
			}
		}
		// want compares the lines since the last call.
		want := func(when string, lines ...string) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			var got []string
			for _, m := range regexp.MustCompile(`level=WARN msg="dead letter" (count=\d+ message_id=\w+ reason=\w+) `).FindAllStringSubmatch(out.String(), -1) {
				got = append(got, m[1])
			}
			slices.Sort(got)
			if !slices.Equal(got, lines) {
				t.Errorf("%s: %q, want %q", when, got, lines)
			}
			out.Reset()
		}
		add(1, ReasonUnroutable, "first")
		want("the first one", "count=1 message_id=first reason=unroutable")
		add(998, ReasonUnroutable, "more")
		add(1, ReasonUnroutable, "last")
		add(1, ReasonNotFound, "other")
		want("another reason", "count=1 message_id=other reason=not_found")
		<-time.After(lettersLogEvery - 1)
		want("before half a minute")
		<-time.After(1)
		want("after half a minute", "count=999 message_id=last reason=unroutable")
		add(1, ReasonUnroutable, "soon")
		add(1, ReasonNotFound, "late")
		want("less than half a minute after a line", "count=1 message_id=late reason=not_found")
		<-time.After(lettersLogEvery)
		want("after another one", "count=1 message_id=soon reason=unroutable")
		<-time.After(time.Hour)
		add(1, ReasonUnroutable, "again")
		want("after an hour", "count=1 message_id=again reason=unroutable")
		add(2, ReasonUnroutable, "end")
		l.close()
		want("at the end", "count=2 message_id=end reason=unroutable")
		add(1, ReasonUnroutable, "behind")
		want("behind the end", "count=1 message_id=behind reason=unroutable")
	})
}
