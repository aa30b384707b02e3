package page

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// mostLines is how many lines of a kind the page remembers.
	mostLines = 10
	// longestText is what it shows of one, in bytes: a broker may say much.
	longestText = 600
	// letterMessage is the line that the publisher writes for messages that it stores, one for many.
	letterMessage = "dead letter"
)

// line is one of the log.
type line struct {
	At     time.Time
	Level  slog.Level
	Broker string // empty unless it is about one
	Text   string
}

// lines is what a Journal and those that it has made have in common.
type lines struct {
	mu      sync.Mutex
	trouble []line // the newest first
	letters []line
	brokers map[string]line // the last one about each
}

// Journal is a handler for the log that remembers the last warnings and errors for the page, and hands all on.
type Journal struct {
	next   slog.Handler
	attrs  []slog.Attr // given by With
	groups int         // opened by WithGroup: what follows is not looked at by name
	lines  *lines
}

// NewJournal returns a handler in front of another.
func NewJournal(next slog.Handler) *Journal {
	return &Journal{next: next, lines: &lines{brokers: make(map[string]line)}}
}

// Enabled is true for warnings and errors, whatever is written.
func (j *Journal) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || j.next.Enabled(ctx, level)
}

// Handle remembers a warning or an error, and hands on what the next handler wants.
func (j *Journal) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		j.remember(r)
	}
	if !j.next.Enabled(ctx, r.Level) {
		return nil
	}
	return j.next.Handle(ctx, r)
}

// WithAttrs is for [slog.Logger.With].
func (j *Journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	other := *j
	other.next = j.next.WithAttrs(attrs)
	if j.groups == 0 {
		other.attrs = slices.Concat(j.attrs, attrs)
	}
	return &other
}

// WithGroup is for [slog.Logger.WithGroup].
func (j *Journal) WithGroup(name string) slog.Handler {
	other := *j
	other.next = j.next.WithGroup(name)
	other.groups++
	return &other
}

// Letter remembers a message that became a dead letter. The log has a line for some of them only.
func (j *Journal) Letter(broker string, attrs ...slog.Attr) {
	r := slog.NewRecord(time.Now(), slog.LevelWarn, letterMessage, 0)
	r.AddAttrs(attrs...)
	l := j.lineOf(r)
	l.Broker = broker
	j.lines.mu.Lock()
	defer j.lines.mu.Unlock()
	j.lines.letters = push(j.lines.letters, l)
}

func (j *Journal) remember(r slog.Record) {
	if r.Message == letterMessage {
		return // Letter knows each
	}
	l := j.lineOf(r)
	j.lines.mu.Lock()
	defer j.lines.mu.Unlock()
	j.lines.trouble = push(j.lines.trouble, l)
	if l.Broker != "" {
		j.lines.brokers[l.Broker] = l
	}
}

func (j *Journal) lineOf(r slog.Record) line {
	l := line{At: r.Time, Level: r.Level}
	var text strings.Builder
	text.WriteString(r.Message)
	add := func(a slog.Attr) bool { // what says itself how it is logged leaves out its secrets so
		if a.Key == "broker" {
			l.Broker = a.Value.Resolve().String()
			return true
		}
		text.WriteString("; " + strings.ReplaceAll(a.Key, "_", " ") + ": " + a.Value.Resolve().String())
		return text.Len() < longestText
	}
	for _, a := range j.attrs {
		add(a)
	}
	r.Attrs(add)
	l.Text = cut(text.String())
	return l
}

// push puts a line in front, and the last one out if there are too many.
func push(all []line, l line) []line {
	return slices.Insert(all[:min(len(all), mostLines-1)], 0, l)
}

// cut keeps the beginning of a long text, in whole characters.
func cut(s string) string {
	if len(s) <= longestText {
		return s
	}
	return strings.ToValidUTF8(s[:longestText], "") + "…"
}

// seen returns copies of what is remembered. Of brokers that are not among the given ones the last line is forgotten.
func (j *Journal) seen(brokers map[string]bool) (trouble, letters []line, last map[string]line) {
	j.lines.mu.Lock()
	defer j.lines.mu.Unlock()
	maps.DeleteFunc(j.lines.brokers, func(id string, _ line) bool { return !brokers[id] })
	return slices.Clone(j.lines.trouble), slices.Clone(j.lines.letters), maps.Clone(j.lines.brokers)
}
