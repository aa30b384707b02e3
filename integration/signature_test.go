package integration

import (
	"bytes"
	"fmt"
	"strings"
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
	w.wantError(`delete from amqp.signing_key`, "messages must be signed")
	w.wantError(`truncate amqp.signing_key`, "messages must be signed")

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
	for _, selected := range [][]string{{"--all"}, {"--exchange", ""}, {"--older-than", "0s"}, {"--broker", "1"}} {
		for _, told := range []string{" would be sent again", " sent again"} {
			command := append([]string{"dead-letters", "redeliver"}, selected...)
			if strings.HasPrefix(told, " would") {
				command = append(command, "--dry-run")
			}
			wantMatch(t, w.command(d, 0, command...), `^0 dead letters`+told)
		}
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

	// An autonomous message comes before the commit of its transaction, and so before a key that it has made.
	w.script(`begin`, `select amqp.sign_messages()`, `select amqp.autonomous_publish(1, '', 'q', 'before the key is there')`, `commit`)
	w.waitDelivered()

	// And back.
	w.exec(`select amqp.require_signatures(false)`)
	w.exec(`select amqp.sign_messages(false)`)
	w.exec(`select amqp.publish(1, '', 'q', 'not signed')`)
	w.exec(`select pg_logical_emit_message(true, 'amqp', $1::bytea)`, bytes.Replace(plain, []byte("to be copied"), []byte("nobody asked"), 1))
	compare([]string{
		"before", "not signed yet", "autonomous", "short", "long", "{}", "\x00\xff", "in a savepoint", "to be copied", "last",
		"by the old key", "by the new key", "by a key that was made while it runs", "the old keys are gone", "before the key is there", "not signed", "nobody asked",
	}, w.received(1, "q")).wantComplete(t)
	// The key is nobody's to read.
	w.exec(`create role ` + w.database + `_curious login password '` + rolePassword + `' in role pgamqp_publisher`)
	if _, err := w.connectAs(w.database+"_curious").Exec(t.Context(), `select * from amqp.signing_key`); err == nil {
		t.Error("a publisher reads the key")
	}
}

// newSigningWorld is one on a server of its own where all messages must be signed.
func newSigningWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.queue(1, "q")
	w.exec(`select amqp.sign_messages()`)
	w.exec(`select amqp.require_signatures()`)
	return w
}

// TestNothingIsTrustedWithoutKeys: a table of keys that is empty, as after a restore of a dump without it, opens nothing.
func TestNothingIsTrustedWithoutKeys(t *testing.T) {
	t.Parallel()
	w := newSigningWorld(t)
	w.script(`set session_replication_role = replica`, `delete from amqp.signing_key`) // no trigger sees it
	w.start()
	w.exec(`select pg_logical_emit_message(true, 'amqp', '\x0270'::bytea || int4send(1) || '\x6b00000171'::bytea || '\x00000000' || 'forged' || sha256(''))`)
	w.wantError(`select amqp.publish(1, '', 'q', 'nobody could tell it from a forged one')`, "messages must be signed, and there is no key")
	await(t, startLimit, "the forged one is a dead letter", func() bool { // and what was signed with the key that is lost
		return value[bool](w, `select count(*) > 0 from amqp.dead_letter where reason = 'forged' and position('forged'::bytea in body) > 0`)
	})
	wantMatch(t, w.command(nil, 0, "doctor"), "amqp.signing_key is empty")
	w.exec(`select amqp.sign_messages()`)
	w.exec(`select amqp.publish(1, '', 'q', 'by a new key')`)
	compare([]string{"by a new key"}, w.received(1, "q")).wantExact(t)
}

// TestForgerDoesNotHaveDefinitionsRead: what forged messages cost is a dead letter each, and not a session of the database.
func TestForgerDoesNotHaveDefinitionsRead(t *testing.T) {
	t.Parallel()
	w := newSigningWorld(t)
	w.start()
	w.waitDelivered()
	sessions := func() int {
		return value[int](w, `select sessions::int from pg_stat_database where datname = current_database()`)
	}
	before := sessions()
	// Unsigned ones, with a wrong signature, and such as seem to tell of a new key; in one transaction, and outside of any.
	const each = 150
	w.exec(`select pg_logical_emit_message(transactional, 'amqp', content) from generate_series(1, $1::int),
		(values (true), (false)) a(transactional), (values ('\x0170'::bytea), ('\x0270' || sha256('')), ('\x0263' || int4send(0) || int4send(0) || sha256(''))) b(content)`, each)
	w.exec(`select amqp.publish(1, '', 'q', 'behind them')`)
	compare([]string{"behind them"}, w.received(1, "q")).wantExact(t)
	if n := w.deadLetters(); n != 6*each {
		t.Errorf("%d dead letters, want %d", n, 6*each)
	}
	if n := sessions() - before; n > each/2 {
		t.Errorf("%d sessions of the database for %d forged messages", n, 6*each)
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
