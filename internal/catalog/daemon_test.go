package catalog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

func TestBrokersAreGroupedInOrder(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, _ := installed(t, p)
		if brokers, err := catalog.Brokers(t.Context(), conn); err != nil || len(brokers) != 0 {
			t.Fatalf("%v, %v", brokers, err)
		}
		exec(t, conn, `insert into amqp.broker (broker_id, host, port, vhost, username, password, tls) values
			(2, 'only', 5671, 'v', 'u', 'p', true), (1, 'b', 5672, null, null, null, false), (1, 'a', 5673, '', '', '', false), (1, 'a', 5672, null, null, null, false)`)
		brokers, err := catalog.Brokers(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		guest := catalog.Host{Port: 5672, VHost: "/", Username: "guest", Password: "guest", Auth: "plain"}
		a, b := guest, guest
		a.Host, b.Host = "a", "b"
		want := []catalog.Broker{
			{ID: 1, OnReject: "dead_letter", Hosts: []catalog.Host{a, {Host: "a", Port: 5673, VHost: "/", Auth: "plain"}, b}},
			{ID: 2, OnReject: "dead_letter", Hosts: []catalog.Host{{Host: "only", Port: 5671, VHost: "v", Username: "u", Password: "p", TLS: true, Auth: "plain"}}},
		}
		if diff := cmp.Diff(want, brokers); diff != "" {
			t.Errorf("brokers (-want +got):\n%s", diff)
		}
	})
}

func TestMostCarefulRowOfABrokerCounts(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, _ := installed(t, p)
		type rows [][2]string // on_reject, retry_timeout
		const forever = time.Duration(math.MaxInt64)
		some := func(d time.Duration) *time.Duration { return &d }
		for i, c := range []struct {
			rows     rows
			onReject string
			retry    *time.Duration
		}{
			{rows{{"drop", ""}}, "drop", nil},
			{rows{{"drop", "0"}}, "drop", some(0)},
			{rows{{"drop", "1500 ms"}, {"drop", "1 s"}}, "drop", some(1500 * time.Millisecond)},
			{rows{{"drop", ""}, {"dead_letter", "1 h"}}, "dead_letter", some(time.Hour)},
			{rows{{"dead_letter", "1 h"}, {"drop", ""}}, "dead_letter", some(time.Hour)},
			{rows{{"drop", "1 s"}, {"hold", "2 s"}, {"dead_letter", "3 s"}}, "hold", some(3 * time.Second)},
			{rows{{"hold", "1 month"}, {"dead_letter", "5 s"}}, "hold", some(30 * 24 * time.Hour)},
			{rows{{"hold", "1000 years"}, {"hold", "5 s"}}, "hold", some(forever)},
		} {
			for n, row := range c.rows {
				exec(t, conn, `insert into amqp.broker (broker_id, host, on_reject, retry_timeout) values ($1, $2, $3, nullif($4, '')::interval)`,
					100+i, fmt.Sprint("host", n), row[0], row[1])
			}
			brokers, err := catalog.Brokers(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			b := brokers[len(brokers)-1]
			if diff := cmp.Diff(c.retry, b.RetryTimeout); b.ID != int32(100+i) || b.OnReject != c.onReject || diff != "" {
				t.Errorf("%v: broker %d, %s\n%s", c.rows, b.ID, b.OnReject, diff)
			}
		}
		if p.Version() >= 17 { // where an interval can be infinite
			exec(t, conn, `insert into amqp.broker (broker_id, host, retry_timeout) values (200, 'a', 'infinity')`)
			brokers, err := catalog.Brokers(t.Context(), conn)
			if b := brokers[len(brokers)-1]; err != nil || b.RetryTimeout == nil || *b.RetryTimeout != forever {
				t.Errorf("infinite: %+v, %v", b, err)
			}
		}
	})
}

func TestPasswordsStayOutOfLogs(t *testing.T) {
	h := catalog.Host{Host: "rabbit", Port: 5672, VHost: "/", Username: "app", Password: "secret", Auth: "plain"}
	b := catalog.Broker{ID: 3, Hosts: []catalog.Host{h}}
	var text bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&text, nil))} {
		log.Info("connected", slog.Any("host", h), slog.Any("broker", b))
	}
	for _, format := range []string{"%v ", "%+v ", "%#v ", "%s "} {
		fmt.Fprintf(&text, format, h)
		fmt.Fprintf(&text, format, b)
	}
	if strings.Contains(text.String(), "secret") || !strings.Contains(text.String(), "rabbit") {
		t.Error(text.String())
	}
}

func letters(t testing.TB, conn *pgx.Conn) []map[string]any {
	t.Helper()
	rows, err := conn.Query(t.Context(), `select * from amqp.dead_letter order by id`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDeadLetterIsStoredAndCounted(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		broker := int32(1)
		letter := catalog.DeadLetter{
			Origin: "1-1-0/16B3748", LSN: 0x16B3748, BrokerID: &broker, Kind: "publish", Reason: "unroutable", ReplyCode: 312, ReplyText: "NO_ROUTE",
			MessageID: "m", Exchange: "ex", RoutingKey: "k", Properties: json.RawMessage(`{"priority": 1}`), Headers: json.RawMessage(`{"a": 1}`),
			Role: "app", Head: []byte("\x01p\x00\x00\x00\x01\x00\x00\x00\x00"), Body: []byte("\x00\xff"),
		}
		for range 3 {
			if err := catalog.AddDeadLetter(t.Context(), conn, letter); err != nil {
				t.Fatal(err)
			}
		}
		if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{Origin: "2", LSN: 2, Kind: "unknown", Reason: "undecodable"}); err != nil {
			t.Fatal(err)
		}
		if n, err := catalog.CountDeadLetters(t.Context(), conn); err != nil || n != 2 {
			t.Errorf("%d dead letters, %v", n, err)
		}
		all := letters(t, conn)
		for key, want := range map[string]any{
			"origin": "1-1-0/16B3748", "lsn": "0/16B3748", "broker_id": int32(1), "kind": "publish", "reason": "unroutable", "reply_code": int32(312),
			"reply_text": "NO_ROUTE", "message_id": "m", "exchange": "ex", "routing_key": "k", "properties": map[string]any{"priority": 1.0},
			"headers": map[string]any{"a": 1.0}, "role": "app", "head": letter.Head, "body": letter.Body, "attempts": int32(3),
		} {
			if diff := cmp.Diff(want, all[0][key]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", key, diff)
			}
		}
		for _, key := range []string{"broker_id", "reply_code", "reply_text", "message_id", "properties", "headers", "role"} {
			if all[1][key] != nil {
				t.Errorf("%s is %v, want NULL", key, all[1][key])
			}
		}
		contents(t, conn, name)
		exec(t, conn, `select amqp.redeliver_all(1)`)
		if got := contents(t, conn, name); len(got) != 1 || !bytes.Equal(got[0], append(letter.Head, letter.Body...)) {
			t.Errorf("redelivered %x", got)
		}
	})
}

func TestDeadLetterTakesAnyBytes(t *testing.T) {
	p := server(t, 15)
	conn, _ := installed(t, p)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	for i, document := range []string{
		`{"nul": "\u0000"}`, `{"lone": "\ud800"}`, `{"n": 1e200000}`, `{"cut`, "", "\xff", `{"\u0000": 1}`,
	} {
		letter := catalog.DeadLetter{
			Origin: fmt.Sprint(i), LSN: 1, Kind: string(every), Reason: "invalid", ReplyText: string(every), MessageID: string(every), Exchange: "a\x00b",
			RoutingKey: "\xff", Properties: json.RawMessage(document), Headers: json.RawMessage(document), Role: "r\x00", Head: every, Body: every,
		}
		if err := catalog.AddDeadLetter(t.Context(), conn, letter); err != nil {
			t.Errorf("%q: %v", document, err)
		}
	}
	for _, letter := range letters(t, conn) {
		if !bytes.Equal(letter["head"].([]byte), every) || !bytes.Equal(letter["body"].([]byte), every) {
			t.Error("head or body was changed")
		}
		if letter["exchange"] != "a\uFFFDb" || letter["routing_key"] != "\uFFFD" {
			t.Errorf("exchange %q, routing key %q", letter["exchange"], letter["routing_key"])
		}
	}
	if n, _ := catalog.CountDeadLetters(t.Context(), conn); n != 7 {
		t.Errorf("%d dead letters", n)
	}
}

// A dead letter must be on disk when its message is reported as done, whatever the role's settings.
func TestDeadLetterIsCommittedSynchronously(t *testing.T) {
	p := server(t, 15)
	conn, _ := installed(t, p)
	exec(t, conn, `set synchronous_commit = off`)
	exec(t, conn, `create function note() returns trigger language plpgsql as $$
		begin new.reply_text := current_setting('synchronous_commit'); return new; end $$`)
	exec(t, conn, `create trigger note before insert on amqp.dead_letter for each row execute function note()`)
	for i, setting := range []string{"off", "local", "remote_apply"} {
		exec(t, conn, `set synchronous_commit = `+setting)
		if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{Origin: fmt.Sprint(i), LSN: 1}); err != nil {
			t.Fatal(err)
		}
		if s := value[string](t, conn, `show synchronous_commit`); s != setting {
			t.Errorf("afterwards it is %s", s)
		}
	}
	if got := value[string](t, conn, `select string_agg(reply_text, ' ' order by id) from amqp.dead_letter`); got != "on local remote_apply" {
		t.Errorf("committed with %s", got)
	}
}

func TestHeartbeatReturnsItsPosition(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		contents(t, conn, name)
		lsn, err := catalog.Heartbeat(t.Context(), conn, "nonce")
		if err != nil || lsn == 0 {
			t.Fatal(lsn, err)
		}
		status, err := catalog.ReadSlot(t.Context(), conn, name)
		if err != nil || status.CurrentWAL < lsn {
			t.Errorf("current WAL %s, heartbeat at %s, %v", status.CurrentWAL, lsn, err)
		}
		if got := contents(t, conn, name); len(got) != 1 || !bytes.HasSuffix(got[0], []byte("nonce")) {
			t.Errorf("%x", got)
		}
	})
}

func TestSlotStatusShowsLag(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		exec(t, conn, `select pg_logical_emit_message(true, 'x', repeat('x', 1000000))`)
		s, err := catalog.ReadSlot(t.Context(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		if s.ConfirmedLag < 1000000 || s.Retained < s.ConfirmedLag || s.Active || s.ActivePID != 0 || s.Lost() || s.WALStatus != "reserved" ||
			s.SafeWALSize != nil || s.RestartLSN == 0 || s.RestartLSN > s.ConfirmedFlush || s.ConfirmedFlush > s.CurrentWAL {
			t.Errorf("%+v", s)
		}
		contents(t, conn, name)
		if s, err = catalog.ReadSlot(t.Context(), conn, name); err != nil || s.ConfirmedLag > 100000 {
			t.Errorf("lag is %d, %v", s.ConfirmedLag, err)
		}
		stream := walsender(t, p, name, name, "pgamqp")
		if s, err = catalog.ReadSlot(t.Context(), conn, name); err != nil || !s.Active || s.ActivePID != int32(stream.PID()) {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := catalog.ReadSlot(t.Context(), conn, name+"_none"); !errors.Is(err, catalog.ErrNoSlot) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestNothingInstalledIsAnError(t *testing.T) {
	p := server(t, 15)
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	if _, err := catalog.ReadInstallation(t.Context(), conn); !errors.Is(err, catalog.ErrNotInstalled) {
		t.Errorf("error is %v", err)
	}
}
