package page

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// journal returns a journal in front of a log of errors only, a logger that uses it, and what is written.
func journal() (*Journal, *slog.Logger, *strings.Builder) {
	var out strings.Builder
	j := NewJournal(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
	return j, slog.New(j), &out
}

func TestJournalHandsOnWhatTheLogWants(t *testing.T) {
	_, log, out := journal()
	log = log.With(slog.String("a", "b")).WithGroup("g")
	log.Info("one")
	log.Warn("two")
	log.Error("three", slog.Int("n", 1))
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "msg=three a=b g.n=1") {
		t.Errorf("log:\n%s", got)
	}
}

func TestJournalRemembersTheLastOfEachKind(t *testing.T) {
	j, log, _ := journal()
	log.Info("not this")
	log.Warn("gone") // ten follow
	broker := log.With(slog.String("broker", "7"))
	for i := range mostLines - 1 {
		broker.Warn("no connection to broker", slog.Int("try", i))
	}
	log.Error("last", slog.String("next_attempt", "soon"))
	broker.Warn(letterMessage, slog.Int("count", 2), slog.String("message_id", "m")) // the log's summary
	j.Letter("7", slog.String("message_id", "m"), slog.String("reason", "not_found"))

	trouble, letters, last := j.seen(map[string]bool{"7": true})
	if len(trouble) != mostLines || trouble[0].Text != "last; next attempt: soon" || trouble[0].Level != slog.LevelError || trouble[0].Broker != "" {
		t.Errorf("trouble: %+v", trouble)
	}
	if trouble[1].Text != "no connection to broker; try: 8" || trouble[1].Broker != "7" || trouble[mostLines-1].Text != "no connection to broker; try: 0" {
		t.Errorf("trouble: %+v", trouble)
	}
	if len(letters) != 1 || letters[0].Text != "dead letter; message id: m; reason: not_found" || letters[0].Broker != "7" {
		t.Errorf("letters: %+v", letters)
	}
	if last["7"].Text != "no connection to broker; try: 8" {
		t.Errorf("of broker 7: %+v", last)
	}
	if _, _, last = j.seen(nil); len(last) != 0 {
		t.Errorf("of a broker that is gone: %+v", last)
	}
	if _, _, last = j.seen(map[string]bool{"7": true}); len(last) != 0 {
		t.Errorf("it is remembered: %+v", last)
	}
}

func TestJournalCutsLongTexts(t *testing.T) {
	j, log, _ := journal()
	log.Warn("a", slog.String("text", strings.Repeat("é", longestText)), slog.String("more", "not this"))
	trouble, _, _ := j.seen(nil)
	if got := trouble[0].Text; len(got) > longestText+len("…") || !strings.HasSuffix(got, "é…") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// account keeps its password out of logs, as hosts of brokers do.
type account struct{ Name, Password string }

func (a account) LogValue() slog.Value { return slog.StringValue(a.Name) }

func TestJournalKeepsSecretsOut(t *testing.T) {
	j, log, _ := journal()
	log.With(slog.Any("first", account{"one", "secret"})).Warn("refused", slog.Any("second", account{"two", "secret"}))
	if trouble, _, _ := j.seen(nil); trouble[0].Text != "refused; first: one; second: two" {
		t.Errorf("it remembers %q", trouble[0].Text)
	}
}

func TestPageShowsTroubleAndDeadLetters(t *testing.T) {
	p, _, url := serve(t, isReady)
	log := slog.New(p.journal)
	log.Warn("no connection to broker", slog.String("broker", "2"), slog.Any("error", fmt.Errorf("<b>refused</b>")))
	log.Warn("all is well there", slog.String("broker", "1"))
	p.journal.Letter("1", slog.String("message_id", "id-1"), slog.String("reason", "not_found"))
	look(t, p, time.Now())
	_, body := get(t, url)
	for _, want := range []string{
		`<p class="why">no connection to broker; error: &lt;b&gt;refused&lt;/b&gt;</p>`,
		`<td class="text">all is well there</td>`,
		`<td class="text">dead letter; message id: id-1; reason: not_found</td>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Count(body, `class="why"`) != 1 {
		t.Error("a broker that works is said to have trouble")
	}
}
