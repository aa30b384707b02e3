package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestP01KillBetweenTwoAdjacentUnitsLosesAndRepeatsNothing kills the daemon when the first of two
// units is confirmed and the second is not. No byte lies between them, so there is only one
// position that neither repeats the first nor loses the second.
func TestP01KillBetweenTwoAdjacentUnitsLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2, postgres: ownPostgres(t, testserver.PostgresOptions{})})
	h := w.history()
	w.queue(1, "q")
	w.queue(2, "q")
	d := w.start()
	kinds := []string{
		`select amqp.autonomous_publish(%d, '', 'q', '%s');`,
		`begin; select amqp.publish(%d, '', 'q', '%s'); commit;`,
		`begin; select amqp.publish(%[1]d, '', 'q', '%[2]s'); select amqp.publish(%[1]d, '', 'q', '%[2]s, too'); commit;`,
	}
	const rounds = 9 // each kind behind each
	exact := 0
	for round := range rounds {
		w.waitDelivered()
		w.breakBroker(d, 2)
		first, second := fmt.Sprintf("%d first", round), fmt.Sprintf("%d second", round)
		conn := w.connect()
		batch := fmt.Sprintf(kinds[round/3], 1, first) + fmt.Sprintf(kinds[round%3], 2, second)
		if _, err := conn.PgConn().Exec(withDeadline(t, sqlLimit), batch).ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(withDeadline(t, sqlLimit)); err != nil {
			t.Fatal(err)
		}
		ends := h.ends()
		await(t, startLimit, "the first unit is confirmed", func() bool {
			return value[bool](w, `select confirmed_flush_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1`,
				w.slot, ends[first].String())
		})
		d.kill()
		confirmed := w.unconfirmed().from
		if confirmed == ends[first] {
			exact++ // else the server has put a record of its own between them
		}
		if confirmed >= ends[second] {
			t.Errorf("round %d: %s is confirmed, and the second unit, which ends at %s, is not", round, confirmed, ends[second])
		}
		w.mendBroker(2)
		d = w.start()
	}
	for broker := 1; broker <= 2; broker++ {
		h.compare(broker, "q").wantExact(t)
	}
	if exact < rounds/2 {
		t.Errorf("only in %d of %d rounds the confirmed position was the end of the first unit", exact, rounds)
	}
}

// TestP02StartAfterEverythingIsConfirmedReceivesNothing is the other half: not a unit comes again.
func TestP02StartAfterEverythingIsConfirmedReceivesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	h := w.history()
	w.queue(1, "q")
	d := w.start()
	for round, last := range []string{
		`select amqp.autonomous_publish(1, '', 'q', '%s')`,
		`select amqp.publish(1, '', 'q', '%s')`,
	} {
		for again, end := range []func(){func() { d.stop() }, func() { d.kill() }} {
			body := fmt.Sprintf("%d.%d", round, again)
			w.exec(fmt.Sprintf(last, body))
			w.waitDelivered()
			end()
			s := w.unconfirmed()
			if last := h.ends()[body]; s.from < last || s.from > s.to {
				t.Errorf("%s: confirmed is %s, want it between the end of the last unit at %s and the end of the WAL at %s", body, s.from, last, s.to)
			}
			d = w.start()
			w.exec(fmt.Sprintf(last, body+" restarted"))
			w.waitDelivered()
			if n := d.metric("pgamqp_received_messages_total", `kind="publish"`) + d.metric("pgamqp_received_messages_total", `kind="autonomous"`); n != 1 {
				t.Errorf("%s: after the start %v messages came from the server, want only the new one", body, n)
			}
		}
	}
	got := w.received(1, "q")
	compare(h.bodies(1), got).wantExact(t)
	for _, m := range got {
		if strings.Count(m.MessageId, "-") != 2 {
			t.Errorf("message_id %q is not made of system, timeline and LSN", m.MessageId)
		}
	}
}
