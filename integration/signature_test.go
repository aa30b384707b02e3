package integration

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestH09SignaturesKeepForgersOut plays a service where everybody may call pg_logical_emit_message.
func TestH09SignaturesKeepForgersOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	d := w.start()
	conn := w.connect()
	w.exec(`select amqp.queue_declare(1, 'q')`)
	w.exec(`select amqp.publish(1, '', 'q', 'before')`)

	// From now on signed, and nothing is lost on the way there: what is open from before is waited for.
	open := w.connect()
	for _, statement := range []string{`begin`, `select amqp.publish(1, '', 'q', 'not signed yet')`} {
		if _, err := open.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	w.wantError(`select amqp.require_signatures()`, "no message is signed")
	w.exec(`select amqp.sign_messages()`)
	w.wantError(`select amqp.require_signatures()`, "a transaction is open that began before messages were signed")
	if _, err := open.Exec(t.Context(), `commit`); err != nil {
		t.Fatal(err)
	}
	w.exec(`select amqp.require_signatures()`)
	w.wantError(`select amqp.sign_messages(false)`, "messages must be signed")

	// Everything that the functions write is signed.
	w.script(
		`begin`,
		`select amqp.publish(1, '', 'q', 'short'), amqp.publish(1, '', 'q', 'long', 2, 'text/plain'), amqp.publish(1, '', 'q', '{}'::jsonb), amqp.publish(1, '', 'q', '\x00ff'::bytea)`,
		`savepoint a`, `select amqp.publish(1, '', 'q', 'rolled back')`, `rollback to a`,
		`savepoint b`, `select amqp.publish(1, '', 'q', 'in a savepoint')`, `release b`,
		`select amqp.autonomous_publish(1, '', 'q', 'autonomous')`,
		`commit`,
		`select amqp.publish(1, '', 'later', 'unroutable')`,
		`select amqp.queue_declare(1, 'later')`,
	)
	w.waitDelivered()
	w.exec(`select amqp.redeliver_all()`)
	compare([]string{"unroutable"}, w.received(1, "later")).wantExact(t)

	// A forger copies what he has seen in the WAL, and makes up more.
	var content []byte
	w.exec(`select pg_create_logical_replication_slot('spy', 'pgoutput')`)
	w.exec(`select amqp.publish(1, '', 'q', 'to be copied')`)
	if err := conn.QueryRow(t.Context(), `select substring(data from position('\x616d717000'::bytea in data) + 9)
		from pg_logical_slot_get_binary_changes('spy', null, null, 'proto_version', '1', 'publication_names', 'pgamqp', 'messages', 'true')
		where get_byte(data, 0) = ascii('M')`).Scan(&content); err != nil {
		t.Fatal(err)
	}
	w.exec(`select pg_drop_replication_slot('spy')`)
	if content[0] != 2 {
		t.Fatalf("the copy begins with %x", content[:10])
	}
	plain := append([]byte{1}, content[1:len(content)-32]...)
	for _, forged := range [][]byte{content, plain, content[:20], {2}, {}} {
		for _, transactional := range []bool{true, false} {
			w.exec(`select pg_logical_emit_message($1, 'amqp', $2::bytea)`, transactional, forged)
		}
	}
	w.exec(`select amqp.publish(1, '', 'q', 'last')`)
	w.waitDelivered()
	if n := value[int](w, `select count(*)::int from amqp.dead_letter where reason = 'forged' and head = '' and reply_text ~ 'sign'`); n != 10 {
		t.Errorf("%d forged messages are dead letters, want 10: %v", n, query[string](w, `select format('%s: %s', reason, reply_text) from amqp.dead_letter`))
	}
	if n := d.metric("pgamqp_dead_lettered_messages_total", `reason="forged"`); n != 10 {
		t.Errorf("the metric counts %v", n)
	}
	if n := value[int](w, `select amqp.redeliver_all()::int`); n != 0 {
		t.Errorf("%d forged messages were sent again", n)
	}
	w.wantError(fmt.Sprintf(`select amqp.redeliver(%d)`, value[int](w, `select min(id)::int from amqp.dead_letter where get_byte(body || '\x00', 0) = 2`)), "has a signature that is wrong")

	// A new key; a daemon that begins anew; what was signed with the old key is still taken.
	d.kill()
	w.exec(`select amqp.publish(1, '', 'q', 'by the old key')`)
	w.exec(`select amqp.sign_messages()`)
	w.exec(`select amqp.publish(1, '', 'q', 'by the new key')`)
	w.start()
	w.exec(`select amqp.sign_messages()`)
	w.exec(`select amqp.publish(1, '', 'q', 'by a key that was made while it runs')`)
	w.waitDelivered()
	w.exec(`delete from amqp.signing_key k where k.key_id < (select max(key_id) from amqp.signing_key)`)
	w.exec(`select amqp.publish(1, '', 'q', 'the old keys are gone')`)

	// And back.
	w.exec(`select amqp.require_signatures(false)`)
	w.exec(`select amqp.sign_messages(false)`)
	w.exec(`select amqp.publish(1, '', 'q', 'not signed')`)
	w.exec(`select pg_logical_emit_message(true, 'amqp', $1::bytea)`, bytes.Replace(plain, []byte("to be copied"), []byte("nobody asked"), 1))
	compare([]string{
		"before", "not signed yet", "autonomous", "short", "long", "{}", "\x00\xff", "in a savepoint", "to be copied", "last",
		"by the old key", "by the new key", "by a key that was made while it runs", "the old keys are gone", "not signed", "nobody asked",
	}, w.received(1, "q")).wantComplete(t)
	// The key is nobody's to read.
	w.exec(`create role ` + w.database + `_curious login password '` + rolePassword + `' in role pgamqp_publisher`)
	if _, err := w.connectAs(w.database+"_curious").Exec(t.Context(), `select * from amqp.signing_key`); err == nil {
		t.Error("a publisher reads the key")
	}
}

// wantError runs a statement that must fail.
func (w *world) wantError(statement, want string) {
	w.t.Helper()
	err := w.try(statement)
	if err == nil {
		w.t.Errorf("%s: no error, want %q", statement, want)
		return
	}
	wantMatch(w.t, err.Error(), want)
}
