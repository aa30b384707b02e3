package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestTailShowsWhatPassesAndConsumesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	w.script(
		`create table public.orders (id int primary key, note text)`,
		`insert into public.orders values (1, 'before')`,
		`select amqp.publish(1, '', 'q', 'before')`,
	)
	watch := func(args ...string) *daemon {
		d := launch(t, append([]string{"tail", "--database-url", w.url()}, args...)...)
		d.waitLog("watching from ")
		return d
	}
	all := watch("--json", "--count", "7")
	some := watch("--broker", "2", "--key", "q*", "--body", "8", "--count", "1")
	toX := watch("--exchange", "x", "--json", "--count", "1")
	w.script(
		`begin; select amqp.publish(1, '', 'q', 'rolled back'); rollback`,
		`begin; select amqp.publish(1, '', 'q', 'first', headers => '{"a": 1}', type => 't'); select amqp.publish(1, 'x', 'k', E'\\x00ff'::bytea); commit`,
		`select amqp.autonomous_publish(1, '', 'q', 'autonomous')`,
		`select amqp.route_table('public.orders', 1, '', 'q')`,
		`update public.orders set note = 'changed'`,
		`select amqp.publish(2, '', 'other', 'no')`,
		`select amqp.publish(2, '', 'queue', 'a body of more characters')`,
		`select amqp.publish(1, '', 'q', 'last')`,
	)
	all.ends(0)
	some.ends(0)
	toX.ends(0, `"exchange":"x"`, `"routing_key":"k"`)
	endless := watch()
	if code := endless.stop(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	type passed struct {
		Broker     int    `json:"broker_id"`
		Key        string `json:"routing_key"`
		Body       *string
		Base64     string          `json:"body_base64"`
		Headers    json.RawMessage `json:"headers"`
		Properties map[string]string
		CommitTime *string `json:"commit_time"`
		MessageID  string  `json:"message_id"`
	}
	var got []passed
	for line := range strings.Lines(all.log.String()) {
		if strings.HasPrefix(line, "{") {
			got = append(got, decode[passed](t, line))
		}
	}
	if len(got) != 7 {
		t.Fatalf("%d messages:\n%s", len(got), all.log.String())
	}
	text := func(i int) string { return fmt.Sprintf("%d %s %s", got[i].Broker, got[i].Key, *got[i].Body) }
	if text(0) != "1 q first" || string(got[0].Headers) != `{"a":1}` || got[0].Properties["type"] != "t" || got[0].CommitTime == nil || got[0].MessageID == "" {
		t.Errorf("the first is %+v", got[0])
	}
	if got[1].Base64 != "AP8=" || got[1].Body != nil {
		t.Errorf("the binary one is %+v", got[1])
	}
	if text(2) != "1 q autonomous" || got[2].CommitTime != nil {
		t.Errorf("the autonomous one is %+v", got[2])
	}
	if r := decode[row](t, *got[3].Body); got[3].Key != "q" || r.Op != "update" || r.After["note"] != "changed" {
		t.Errorf("the row is %+v", got[3])
	}
	if text(6) != "1 q last" {
		t.Errorf("the last is %+v", got[6])
	}
	wantMatch(t, some.log.String(), `(?m)^\d\d:\d\d:\d\d\.\d{3}  [0-9A-F]+/[0-9A-F]+  broker 2  \(default\)  queue  25 B  a body …$`)
	if slots := query[string](w, `select slot_name::text from pg_replication_slots where database = current_database()`); fmt.Sprint(slots) != "["+w.slot+"]" {
		t.Errorf("the slots that are left are %v", slots)
	}
	w.start()
	if got := len(w.received(1, "q")); got != 5 { // before, first, autonomous, the row, last
		t.Errorf("%d messages were delivered by a daemon that came later, want 5", got)
	}
}
