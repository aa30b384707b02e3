package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestFirstMessageOfTheReadmeArrives does what the README says, with other addresses.
func TestFirstMessageOfTheReadmeArrives(t *testing.T) {
	postgres, err := testserver.StartPostgres(testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Close() })
	w := newWorld(t, worldOptions{postgres: postgres, bare: true})

	var d *daemon
	for _, b := range claimed(t, "README.md") {
		switch b.Language {
		case "sql":
			text := strings.Replace(b.Text, "(host, username, password) values ('localhost', 'guest', 'guest')",
				fmt.Sprintf("(host, port, vhost, username, password) values ('%s', %d, '%s', 'guest', 'guest')",
					w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0]), 1)
			if _, err := postgres.Psql(t.Context(), w.database, text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		case "sh":
			const build = `make build && export PATH="$PWD/bin:$PATH"    # bin/pgamqp, found by its name; or: sudo install bin/pgamqp /usr/local/bin` + "\n" // which the harness did
			for _, args := range commands(t, b, build, "", "postgres://postgres@localhost/shop", w.url()) {
				if args[0] == "run" {
					d = launch(t, append(args, "--listen", "127.0.0.1:0")...)
					d.waitReady()
				} else if code, out := pgamqp(t, args...); code != 0 {
					t.Fatalf("%q: exit code %d\n%s", args, code, out)
				}
			}
		default:
			t.Fatalf("%s: nobody runs a block of %s", b, b.Language)
		}
	}
	if d == nil {
		t.Fatal("the README runs no daemon")
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
