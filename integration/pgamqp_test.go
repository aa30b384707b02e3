package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const guideFromPgAMQP = "docs/migrate-from-pg_amqp.md"

// TestCallsOfPgAMQPDoWhatTheGuideSays makes every call as it was written for pg_amqp.
func TestCallsOfPgAMQPDoWhatTheGuideSays(t *testing.T) {
	t.Parallel()
	rabbit := breakable(t)
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{Settings: map[string]string{"max_prepared_transactions": "5"}}), rabbit: rabbit})
	w.queue(1, "all")
	ch := w.channel(1)
	for _, err := range []error{
		ch.ExchangeDeclare("e", "topic", true, false, false, false, nil), ch.ExchangeDeclare("lonely", "fanout", true, false, false, false, nil),
		ch.QueueBind("all", "#", "e", false, nil), ch.QueueBind("all", "foo", "amq.direct", false, nil), ch.QueueBind("all", "k", "amq.direct", false, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.script(`insert into amqp.broker (broker_id, host, port, vhost) select 2, h.host, h.port, b.vhost from amqp.broker b, lateral (values ('127.0.0.1', 1), (b.host, b.port)) h(host, port)`,
		`create role plain`, `grant usage on schema amqp to plain`)
	w.start("--detach-after", "0s")
	for _, c := range oldCalls() {
		if same := c.theirs == c.ours; same != (c.difference == "") {
			t.Errorf("%s: both do the same: %v, and the difference is %q", c.name, same, c.difference)
		}
		if got := w.call(c); got != c.ours {
			t.Errorf("%s: %q\n got %+v\nwant %+v", c.name, c.sql, got, c.ours)
		}
	}
}

// call runs the statements of a call in a session of its own and tells what comes of them.
func (w *world) call(c oldCall) (o outcome) {
	w.t.Helper()
	conn := w.connect()
	defer func() { _ = conn.Close(withDeadline(w.t, sqlLimit)) }() // the one of the last statement
	var says []string
	for _, statement := range c.sql {
		switch statement {
		case "!stop", "!restart":
			if err := w.rabbit.Stop(); err != nil {
				w.t.Fatal(err)
			}
		}
		if statement == "!standby" {
			conn = w.connectToStandby()
			continue
		}
		switch statement {
		case "!start", "!restart":
			if err := w.rabbit.Start(); err != nil {
				w.t.Fatal(err)
			}
			fallthrough
		case "!stop":
			continue
		}
		results, err := conn.PgConn().Exec(withDeadline(w.t, sqlLimit), statement).ReadAll()
		var refused *pgconn.PgError
		switch {
		case errors.As(err, &refused):
			says = append(says, "error "+refused.Code)
		case err != nil:
			w.t.Fatalf("%s: %s: %v", c.name, statement, err)
		default:
			var rows []string
			for _, row := range results[0].Rows {
				rows = append(rows, string(bytes.Join(row, []byte(" "))))
			}
			says = append(says, strings.Join(rows, ", "))
		}
	}
	o.says = strings.Join(says, " | ")
	var comes []string
	for _, m := range w.received(1, "all") {
		text := m.Exchange + "/" + m.RoutingKey + " " + string(m.Body)
		if p := properties(m, c.properties); p != "" || c.properties {
			text += " {" + p + "}"
		}
		comes = append(comes, text)
	}
	comes = append(comes, query[string](w, `with gone as (delete from amqp.dead_letter returning *)
		select format('[%s %s/%s %s]', reason, exchange, routing_key, convert_from(body, 'UTF8')) from gone order by id`)...)
	o.comes = strings.Join(comes, ", ")
	return o
}

// connectToStandby makes a standby, and a connection to it.
func (w *world) connectToStandby() *pgx.Conn {
	w.t.Helper()
	standby, err := w.postgres.StartStandby(testserver.StandbyOptions{Name: "old_calls"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			w.t.Error(err)
		}
	})
	conn, err := pgx.Connect(withDeadline(w.t, startLimit), standby.URL(w.database))
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// properties names those of a message: all, or only those that no message has unless its call gives them.
func properties(m amqp.Delivery, all bool) string {
	var p []string
	if m.DeliveryMode == amqp.Transient || all {
		p = append(p, fmt.Sprintf("mode %d", m.DeliveryMode))
	}
	for _, v := range []struct{ word, value string }{{"", m.ContentType}, {"to ", m.ReplyTo}, {"correlation ", m.CorrelationId}} {
		if v.value != "" {
			p = append(p, v.word+v.value)
		}
	}
	if all && m.MessageId != "" {
		p = append(p, "an id")
	}
	if all && len(m.Headers) > 0 {
		p = append(p, "headers")
	}
	return strings.Join(p, ", ")
}

// differenceRow is a row of the table of differences: its id, and what is behind it.
var differenceRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (.+) \\| (.+) \\| (.+) \\|$")

// TestGuideNamesEachDifferenceFromPgAMQP compares the table of the document with the calls that were tried.
func TestGuideNamesEachDifferenceFromPgAMQP(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../" + guideFromPgAMQP)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range differenceRow.FindAllStringSubmatch(string(text), -1) {
		named = append(named, m[1])
	}
	for _, w := range compareDifferences(named, oldCalls()) {
		t.Error(w)
	}
}

// compareDifferences tells which ids the document lacks, names twice, or names without a call that shows them.
func compareDifferences(named []string, calls []oldCall) (wrong []string) {
	shown := map[string]bool{}
	for _, c := range calls {
		if c.difference != "" && !shown[c.difference] {
			shown[c.difference] = true
			if !slices.Contains(named, c.difference) {
				wrong = append(wrong, fmt.Sprintf("no row for the difference %s", c.difference))
			}
		}
	}
	seen := map[string]bool{}
	for _, id := range named {
		switch {
		case seen[id]:
			wrong = append(wrong, fmt.Sprintf("two rows for the difference %s", id))
		case !shown[id]:
			wrong = append(wrong, fmt.Sprintf("no call shows the difference %s", id))
		}
		seen[id] = true
	}
	return wrong
}

func TestGuideNamesEachDifferenceFindsMistakes(t *testing.T) {
	t.Parallel()
	calls := []oldCall{{difference: "a"}, {difference: "b"}, {difference: "b"}, {}}
	for named, want := range map[string]string{
		"a b": "", "a": "no row for the difference b", "a b a": "two rows for the difference a", "a b c": "no call shows the difference c",
	} {
		if got := strings.Join(compareDifferences(strings.Fields(named), calls), "; "); got != want {
			t.Errorf("of %q: found %q, want %q", named, got, want)
		}
	}
}
