package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgamqp/pgamqp/internal/catalog"
)

// listDeadLetters prints a table, and how to see what is left.
func listDeadLetters(out io.Writer, c colors, letters []catalog.StoredDeadLetter, left int64) error {
	if len(letters) == 0 {
		_, err := fmt.Fprintln(out, "There is no dead letter of this kind.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\t"+c.paint(plain, "LAST FAILED")+"\tTRIED\tBROKER\t"+c.paint(plain, "REASON")+"\tEXCHANGE\tROUTING KEY\tBYTES\tREPLY")
	for i := range letters {
		l := &letters[i]
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%d\t%s\n", l.ID, c.paint(dim, l.Last.Local().Format(time.DateTime)), l.Attempts,
			orDash(l.BrokerID), c.paint(reasonColor(l.Reason), l.Reason), exchangeName(l.Exchange), short(orDash(l.RoutingKey), 40), l.BodyBytes, short(reply(l), 60))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if left > 0 {
		_, err := fmt.Fprintf(out, "%d more: --after %d\n", left, letters[len(letters)-1].ID)
		return err
	}
	return nil
}

// reasonColor is yellow for what the program would deliver if the broker could, and red for what somebody must mend.
func reasonColor(reason string) color {
	if reason == "nacked" {
		return yellow
	}
	return red
}

// showDeadLetter prints all that there is, a line each, and the beginning of the body.
func showDeadLetter(out io.Writer, l *catalog.StoredDeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range []struct{ name, value string }{
		{"id", fmt.Sprint(l.ID)},
		{"reason", l.Reason},
		{"reply", reply(l)},
		{"tried", fmt.Sprintf("%d times", l.Attempts)},
		{"first failed", l.First.Local().Format(time.RFC3339)},
		{"last failed", l.Last.Local().Format(time.RFC3339)},
		{"broker", orDash(l.BrokerID)},
		{"exchange", exchangeName(l.Exchange)},
		{"routing key", orDash(l.RoutingKey)},
		{"message id", orDash(l.MessageID)},
		{"kind", l.Kind},
		{"published by", orDash(l.Role)},
		{"WAL position", l.LSN},
		{"first sent as", l.Origin},
		{"properties", cmp.Or(string(l.Properties), "-")},
		{"headers", cmp.Or(string(l.Headers), "-")},
		{"body", fmt.Sprintf("%d bytes", l.BodyBytes)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line.name, printable(line.value))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, "\n"+excerpt(l.Body))
	return err
}

// excerpt is the beginning of a body: text as it is, anything else in hexadecimal.
func excerpt(body []byte) string {
	const most = 4096
	start := body[:min(len(body), most)]
	for cut := 0; cut < utf8.UTFMax && len(start) < len(body) && !utf8.Valid(start) && len(start) > 0; cut++ {
		start = start[:len(start)-1] // not in the middle of a character
	}
	text := string(start)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) }) {
		text = hex.Dump(body[:min(len(body), most/16)])
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if len(start) < len(body) {
		text += "... all of it: --body\n"
	}
	return text
}

func reply(l *catalog.StoredDeadLetter) string {
	if l.ReplyCode == nil {
		return orDash(l.ReplyText)
	}
	return printable(strings.TrimSpace(fmt.Sprint(*l.ReplyCode, " ", deref(l.ReplyText))))
}

func exchangeName(name *string) string {
	if name != nil && *name == "" {
		return "(default)"
	}
	return orDash(name)
}

// orDash is a value, or what stands for none.
func orDash[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return printable(fmt.Sprint(*v))
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// printable is s without what would move the cursor of a terminal or break a table: what applications and brokers
// write is shown to people here.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// short cuts a text that is longer than so many characters.
func short(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// counted is a number and what it counts.
func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
