package main

import (
	"strings"
	"testing"
	"time"
)

func TestExcerptOfABody(t *testing.T) {
	long := strings.Repeat("ä", 4000)
	for _, c := range []struct{ body, want string }{
		{"", ""},
		{"text\n\twith a tab", "text\n\twith a tab\n"},
		{"\x1b[2J", "00000000  1b 5b 32 4a "},
		{"\xff\xfe", "00000000  ff fe "},
		{long, strings.Repeat("ä", 2048) + "\n... all of it: --body\n"},
	} {
		if got := excerpt([]byte(c.body)); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("excerpt of %.20q is %.60q, want %.60q", c.body, got, c.want)
		}
	}
}

func TestFiguresForPeople(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{ageOf(0), "none"},
		{ageOf(0.0123), "12ms"},
		{ageOf(90), "1m30s"},
		{ageOf((50 * time.Hour).Seconds()), "2 days"},
		{printable("a\tb\x1b[2J"), "a\uFFFDb\uFFFD[2J"},
		{short("äöüß", 3), "äö…"},
		{counted(1, "error"), "1 error"},
		{shellWord("/shop_1.a-b"), "/shop_1.a-b"},
		{shellWord("it's"), `'it'\''s'`},
		{shellWord(""), "''"},
		{counted(2, "error"), "2 errors"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
