package integration

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

// TestFormatsComeThroughServersAsTheyAreDocumented: every format of one table, with numbers and hexadecimal digits.
func TestFormatsComeThroughServersAsTheyAreDocumented(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "json", "debezium", "cloudevents", "cloudevents_structured")
	w.script(
		`create domain public.moment as timestamp(3)`,
		`create table public.orders (id int primary key, price numeric(10,2), raw bytea, at public.moment, tz timestamptz(3), note text)`,
		`alter table public.orders alter note set storage external`,
		`select amqp.route_table('public.orders', 1, '', f, f, numeric_as => 'number', bytea_as => 'hex')
			from unnest('{json,debezium,cloudevents,cloudevents_structured}'::text[]) f`,
	)
	before := time.Now().Add(-time.Minute)
	w.start()
	w.script(
		`insert into public.orders values (1, 12.50, '\x00ff', '2026-01-02 03:04:05.67', '2026-01-02 03:04:05.6+00', repeat('x', 5000))`,
		`update public.orders set price = 'NaN'`,
		`update public.orders set id = 2`,
		`delete from public.orders`,
		`truncate public.orders`,
	)
	w.waitDelivered()

	flat := w.take(1, "json")
	wantBodies(t, "json", flat, []string{
		`{"op": "insert", "before": null, "after": {"id": 1, "price": 12.50, "raw": "00ff", "at": "2026-01-02T03:04:05.67", "tz": "2026-01-02T03:04:05.6Z", "note": "xxx"}}`,
		`{"op": "update", "before": null, "after": {"id": 1, "price": "NaN", "raw": "00ff", "at": "2026-01-02T03:04:05.67", "tz": "2026-01-02T03:04:05.6Z"}, "unchanged": ["note"]}`,
		`{"op": "update", "before": {"id": 1}, "after": {"id": 2, "price": "NaN", "raw": "00ff", "at": "2026-01-02T03:04:05.67", "tz": "2026-01-02T03:04:05.6Z"}, "unchanged": ["note"]}`,
		`{"op": "delete", "before": {"id": 2}, "after": null}`,
		`{"op": "truncate", "before": null, "after": null, "cascade": false, "restart_identity": false}`,
	})
	const row = `"price": "NaN", "raw": "00ff", "at": 1767323045670, "tz": "2026-01-02T03:04:05.600Z", "note": "__debezium_unavailable_value"`
	wantBodies(t, "debezium", w.take(1, "debezium"), []string{
		`{"op": "c", "before": null, "after": {"id": 1, "price": 12.50, "raw": "00ff", "at": 1767323045670, "tz": "2026-01-02T03:04:05.600Z", "note": "xxx"}}`,
		`{"op": "u", "before": null, "after": {"id": 1, ` + row + `}}`,
		`{"op": "d", "before": {"id": 1}, "after": null}`,
		`{"op": "c", "before": null, "after": {"id": 2, ` + row + `}}`,
		`{"op": "d", "before": {"id": 2}, "after": null}`,
		`{"op": "t", "before": null, "after": null}`,
	})

	binary, structured := w.take(1, "cloudevents"), w.take(1, "cloudevents_structured")
	if len(binary) != len(flat) || len(structured) != len(flat) {
		t.Fatalf("%d binary, %d structured events, want %d", len(binary), len(structured), len(flat))
	}
	last := map[string]string{}
	for i := range flat {
		if binary[i].ContentType != "application/json" || !cmp.Equal(binary[i].Body, flat[i].Body) {
			t.Errorf("binary event %d is %s of %s, want the flat form", i, binary[i].Body, binary[i].ContentType)
		}
		attributes := map[string]any{}
		for name, v := range binary[i].Headers {
			attributes[strings.TrimPrefix(name, "cloudEvents_")] = v
		}
		checkAttributes(t, w, attributes, binary[i], before, last)

		var event map[string]any
		if err := json.Unmarshal(structured[i].Body, &event); err != nil || structured[i].ContentType != "application/cloudevents+json; charset=utf-8" {
			t.Fatalf("structured event %d is of type %s, %v", i, structured[i].ContentType, err)
		}
		data, _ := json.Marshal(event["data"])
		var want any
		if err := json.Unmarshal(flat[i].Body, &want); err != nil || !cmp.Equal(event["data"], want) {
			t.Errorf("data of structured event %d is %s, want %s, %v", i, data, flat[i].Body, err)
		}
		if event["datacontenttype"] != "application/json" {
			t.Errorf("datacontenttype is %v", event["datacontenttype"])
		}
		delete(event, "data")
		delete(event, "datacontenttype")
		checkAttributes(t, w, event, structured[i], before, last)
	}
}

// wantBodies compares bodies, of which the members are looked at that are wanted. Long texts are cut.
func wantBodies(t *testing.T, format string, got []amqp.Delivery, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d messages, want %d", format, len(got), len(want))
	}
	for i := range got {
		text := strings.ReplaceAll(string(got[i].Body), strings.Repeat("x", 5000), "xxx")
		var have, wanted map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &have); err != nil {
			t.Fatalf("%s: %s: %v", format, text, err)
		}
		if err := json.Unmarshal([]byte(want[i]), &wanted); err != nil {
			t.Fatalf("%s: %v", want[i], err)
		}
		for name, w := range wanted {
			if diff := cmp.Diff(compact(t, w), compact(t, have[name])); diff != "" {
				t.Errorf("%s: message %d: %s differs:\n%s", format, i, name, diff)
			}
		}
	}
}

// compact is JSON without spaces: numbers stay as they are written.
func compact(t *testing.T, text json.RawMessage) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// checkAttributes checks the context attributes of an event: those that CloudEvents 1.0 requires, and ours, all of them
// texts, with names of small letters and digits.
func checkAttributes(t *testing.T, w *world, attributes map[string]any, m amqp.Delivery, since time.Time, last map[string]string) {
	t.Helper()
	texts := map[string]string{}
	for name, v := range attributes {
		text, isText := v.(string)
		if !isText || text == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(name) > 20 {
			t.Errorf("attribute %q is %#v", name, v)
		}
		texts[name] = text
	}
	if texts["specversion"] != "1.0" || texts["id"] != m.MessageId || !strings.HasPrefix(texts["type"], "pgamqp.row.") {
		t.Errorf("attributes %v of message %s", texts, m.MessageId)
	}
	if source, err := url.Parse(texts["source"]); err != nil || source.Path != "/pgamqp/"+w.slot+"/"+w.database {
		t.Errorf("source %q, %v", texts["source"], err)
	}
	if at, err := time.Parse(time.RFC3339, texts["time"]); err != nil || at.Before(since) || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("time %q, %v", texts["time"], err)
	}
	if texts["subject"] != "public.orders" || len(texts) != 7 {
		t.Errorf("attributes %v", texts)
	}
	if texts["sequence"] <= last[m.RoutingKey] {
		t.Errorf("sequence %q comes after %q", texts["sequence"], last[m.RoutingKey])
	}
	last[m.RoutingKey] = texts["sequence"]
	if last[texts["id"]] != "" {
		t.Errorf("id %s comes twice", texts["id"])
	}
	last[texts["id"]] = "seen"
}
