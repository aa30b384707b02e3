package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestP42TransactionOfManyMessagesArrivesInOrderAndInBoundedMemory(t *testing.T) {
	t.Parallel()
	const (
		count = 100_000
		// Collected, the transaction would take 200 MB and more: each message weighs 1 kB besides
		// its body. The race detector alone takes half of what is allowed.
		limit = 150 << 20
	)
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start()
	idle := d.peakMemory()
	c := w.consume(1, "q")
	w.exec(`select amqp.publish(1, '', 'q', format('%s %s', n, repeat('x', 1000))) from generate_series(1, $1::int) n`, count)

	ids := make(map[string]bool, count)
	for i, m := range c.next(count) {
		var n int
		if _, err := fmt.Sscan(string(m.Body[:bytes.IndexByte(m.Body, ' ')]), &n); err != nil || n != i+1 {
			t.Fatalf("message %d is in place %d", n, i+1)
		}
		ids[m.MessageId] = true
	}
	if len(ids) != count {
		t.Errorf("%d messages have %d ids", count, len(ids))
	}
	w.waitDelivered()
	if more := c.untilMark(w.mark(1, "q")); len(more) > 0 {
		t.Errorf("%d more messages came", len(more))
	}
	peak := d.peakMemory()
	t.Logf("the daemon took %d MB at most, %d MB before the transaction", peak>>20, idle>>20)
	if peak > limit {
		t.Errorf("the daemon took %d MB for a transaction of %d MB", peak>>20, count*1000>>20)
	}
}

func TestP43BodyOf64MiBArrivesUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	body := make([]byte, 64<<20)
	random := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	_, _ = random.Read(body) // never fails
	conn := w.connect()
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'before')`)
	run(t, conn, `select amqp.publish(1, '', 'q', $1::bytea)`, body)
	run(t, conn, `select amqp.publish(1, '', 'q', 'behind')`)
	run(t, conn, `commit`)
	got := w.received(1, "q")
	if len(got) != 3 || string(got[0].Body) != "before" || string(got[2].Body) != "behind" {
		t.Fatalf("%d messages came, want 3 in order", len(got))
	}
	if !bytes.Equal(got[1].Body, body) {
		t.Errorf("the body has changed; it has %d bytes now, had %d", len(got[1].Body), len(body))
	}
}

func TestH06EveryKindOfBodyArrivesUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, c := range []struct {
		name    string
		message string // in SQL
		args    []any
		body    string
		content string // type
	}{
		{"every byte", `$1::bytea`, []any{every}, string(every), ""},
		{"zeros", `'\x00000000'::bytea`, nil, "\x00\x00\x00\x00", ""},
		{"what ends the fields of an envelope", `'\x000000000178'::bytea`, nil, "\x00\x00\x00\x00\x01x", ""},
		{"empty bytea", `''::bytea`, nil, "", ""},
		{"null bytea", `null::bytea`, nil, "", ""},
		{"text", `'Größe: 3 €, 𝄞'`, nil, "Größe: 3 €, 𝄞", ""},
		{"empty text", `''`, nil, "", ""},
		{"null text", `null::text`, nil, "", ""},
		{"varchar", `'a'::varchar(10)`, nil, "a", ""},
		{"jsonb", `'{"b" : 1, "a": [true, null]}'::jsonb`, nil, `{"a": [true, null], "b": 1}`, "application/json"},
		{"null jsonb", `null::jsonb`, nil, "", "application/json"},
		{"json", `'{"b" : 1, "a":2}'::json`, nil, `{"b" : 1, "a":2}`, "application/json"},
	} {
		for _, function := range []string{"publish", "autonomous_publish"} {
			name := function + " of " + c.name
			w.exec(`select amqp.`+function+`(1, '', 'q', `+c.message+`)`, c.args...)
			got := w.received(1, "q")
			if len(got) != 1 {
				t.Errorf("%s: %d messages came", name, len(got))
				continue
			}
			if string(got[0].Body) != c.body || got[0].ContentType != c.content || got[0].DeliveryMode != amqp.Persistent {
				t.Errorf("%s: came as %q of type %q, delivery mode %d", name, got[0].Body, got[0].ContentType, got[0].DeliveryMode)
			}
		}
	}
}
