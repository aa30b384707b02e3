package integration

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// snippets returns the code blocks of a section of the README, in order: language and text.
func snippets(t *testing.T, section string) [][2]string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", section)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	var out [][2]string
	for _, m := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(text, -1) {
		out = append(out, [2]string{m[1], m[2]})
	}
	return out
}

// TestFirstMessageOfTheReadmeArrives does what the README says, with other addresses.
func TestFirstMessageOfTheReadmeArrives(t *testing.T) {
	postgres, err := testserver.StartPostgres(testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Close() })
	w := newWorld(t, worldOptions{postgres: postgres, bare: true})

	var d *daemon
	ran := 0
	for _, s := range snippets(t, "First message") {
		switch language, text := s[0], s[1]; language {
		case "sql":
			text = strings.Replace(text, "(host, username, password) values ('localhost', 'guest', 'guest')",
				fmt.Sprintf("(host, port, vhost, username, password) values ('%s', %d, '%s', 'guest', 'guest')",
					w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0]), 1)
			if _, err := postgres.Psql(t.Context(), w.database, text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			ran++
		case "sh":
			for line := range strings.Lines(text) {
				args := strings.Fields(strings.Replace(line, "postgres://postgres@localhost/shop", w.url(), 1))
				switch {
				case len(args) < 2 || args[0] != "pgamqp":
					continue // make build: the harness did
				case args[1] == "run":
					d = launch(t, append(args[1:], "--listen", "127.0.0.1:0")...)
					d.waitReady()
				default:
					if code, out := pgamqp(t, args[1:]...); code != 0 {
						t.Fatalf("%s: exit code %d\n%s", line, code, out)
					}
				}
				ran++
			}
		}
	}
	if ran < 4 || d == nil {
		t.Fatalf("only %d commands found in the README", ran)
	}
	w.waitDelivered()
	consumer := w.consume(1, "orders")
	got := consumer.next(1)
	if string(got[0].Body) != `{"order": 1}` {
		t.Errorf("got %q", got[0].Body)
	}
	// The two roles do what they are for.
	d.stop()
	d = launch(t, "run", "--database-url", w.urlAs("shop_pgamqp"), "--listen", "127.0.0.1:0")
	d.waitReady()
	if _, err := postgres.Psql(t.Context(), w.database, `set role shop_application; select amqp.publish(1, '', 'orders', 'second')`); err != nil {
		t.Fatal(err)
	}
	if got := consumer.next(1); string(got[0].Body) != "second" {
		t.Errorf("got %q", got[0].Body)
	}
}
