package publisher

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
)

// routed routes content as the n-th message of a stream.
func routed(tb testing.TB, n int, content []byte, add Headers) (request, error) {
	tb.Helper()
	m := message(n, content)
	m.CommitTime = time.Date(2024, 2, 29, 12, 0, 0, 5000, time.UTC)
	e := parsed(tb, content)
	return route(&m, &e, add)
}

func mustRoute(tb testing.TB, n int, content []byte, add Headers) request {
	tb.Helper()
	r, err := routed(tb, n, content, add)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestMessageIDIsTheUsersOrTheFirstEmissions(t *testing.T) {
	for name, c := range map[string]struct {
		f    fields
		want string
	}{
		"none given":              {fields{}, "71-1-0/1030"},
		"the user's":              {fields{'i': "mine"}, "mine"},
		"of a redelivery":         {fields{'o': "71-1-0/42"}, "71-1-0/42"},
		"the user's, redelivered": {fields{'o': "71-1-0/42", 'i': "mine"}, "mine"},
	} {
		if got := mustRoute(t, 3, envelope(decoder.KindPublish, 1, c.f, ""), Headers{}).properties.MessageId; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What comes again after a failure must be the same message in every byte.
func TestEqualMessagesGiveEqualRequests(t *testing.T) {
	texts := map[byte][]string{
		'x': {"", "ex"}, 'k': {"", "key"}, 'h': {"", `{"a": {"$decimal": "1.5"}, "b": [1, 2.5, null], "c": {"d": true}}`},
		'i': {"", "id"}, 's': {"", "1700000000"}, 'p': {"", "9"}, 'u': {"", "guest"}, 'f': {"", "u"}, 'r': {"", "role"},
	}
	rapid.Check(t, func(r *rapid.T) {
		f := fields{}
		for _, tag := range []byte("xkhispufr") {
			f[tag] = rapid.SampledFrom(texts[tag]).Draw(r, string(tag))
		}
		add := Headers{
			LSN: rapid.Bool().Draw(r, "lsn"), XID: rapid.Bool().Draw(r, "xid"),
			CommitTime: rapid.Bool().Draw(r, "time"), Role: rapid.Bool().Draw(r, "role header"),
		}
		content := envelope(decoder.KindPublish, 1, f, rapid.String().Draw(r, "body"))
		before := bytes.Clone(content)
		one, two := mustRoute(t, 1, content, add), mustRoute(t, 1, bytes.Clone(content), add)
		if diff := cmp.Diff(one, two, cmp.AllowUnexported(request{}, operation{})); diff != "" {
			r.Fatalf("not the same:\n%s", diff)
		}
		if !bytes.Equal(content, before) {
			r.Fatal("the content was changed")
		}
	})
}

func TestMessagesAreMandatoryUnlessTheyAskNotToBe(t *testing.T) {
	for flags, want := range map[string]bool{"": true, "u": false} {
		if got := mustRoute(t, 1, envelope(decoder.KindPublish, 1, fields{'f': flags}, ""), Headers{}).mandatory; got != want {
			t.Errorf("%q: %t", flags, got)
		}
	}
}

func TestHeadersOfTheDaemonAreAddedWhereThereIsSomethingToSay(t *testing.T) {
	all := Headers{LSN: true, XID: true, CommitTime: true, Role: true}
	content := envelope(decoder.KindPublish, 1, fields{'h': `{"mine": true}`, 'r': "alice"}, "")
	want := amqp.Table{
		"mine": true, "x-pg-lsn": "0/1030", "x-pg-xid": int64(7), "x-pg-role": "alice",
		"x-pg-commit-time": "2024-02-29T12:00:00.000005Z",
	}
	if diff := cmp.Diff(want, mustRoute(t, 3, content, all).properties.Headers); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if got := mustRoute(t, 3, content, Headers{}).properties.Headers; len(got) != 1 {
		t.Errorf("without being asked: %v", got)
	}

	lone := message(3, envelope(decoder.KindPublish, 1, nil, ""))
	lone.Transactional, lone.XID, lone.CommitTime = false, 0, time.Time{}
	e := parsed(t, lone.Content)
	r, err := route(&lone, &e, all)
	if diff := cmp.Diff(amqp.Table{"x-pg-lsn": "0/1030"}, r.properties.Headers); err != nil || diff != "" {
		t.Errorf("%v, want -, got +:\n%s", err, diff)
	}
}

func TestTargetIsExchangeAndUser(t *testing.T) {
	of := func(f fields) target {
		r := mustRoute(t, 1, envelope(decoder.KindPublish, 1, f, ""), Headers{})
		return r.target()
	}
	if of(fields{'x': "a", 'k': "1"}) != of(fields{'x': "a", 'k': "2", 'i': "id"}) {
		t.Error("the routing key is no part of what a broker refuses as a whole")
	}
	for _, f := range []fields{{'x': "b"}, {'x': "a", 'u': "guest"}, {}} {
		if of(f) == of(fields{'x': "a"}) {
			t.Errorf("%v is taken for the same target", f)
		}
	}
}

func TestOperationsAreReadFromTheirEnvelopes(t *testing.T) {
	type flat struct {
		text                                   string
		exchange, exchangeType, queue, key     string
		passive, durable, autoDelete, internal bool
	}
	for _, c := range []struct {
		kind decoder.Kind
		f    fields
		want flat
	}{
		{
			decoder.KindExchangeDeclare,
			fields{'x': "ex", 'w': "topic", 'f': "di"},
			flat{text: `declare exchange "ex"`, exchange: "ex", exchangeType: "topic", durable: true, internal: true},
		},
		{
			decoder.KindQueueDeclare,
			fields{'q': "q", 'f': "pa"},
			flat{text: `declare queue "q"`, queue: "q", passive: true, autoDelete: true},
		},
		{
			decoder.KindQueueBind,
			fields{'q': "q", 'x': "ex", 'k': "#"},
			flat{text: `bind queue "q" to exchange "ex"`, queue: "q", exchange: "ex", key: "#"},
		},
		{
			decoder.KindExchangeBind,
			fields{'q': "to", 'x': "from", 'k': "#"},
			flat{text: `bind exchange "to" to exchange "from"`, queue: "to", exchange: "from", key: "#"},
		},
		{decoder.KindDisconnect, fields{}, flat{text: "disconnect"}},
	} {
		op := mustRoute(t, 1, envelope(c.kind, 1, c.f, ""), Headers{}).operation
		if op == nil {
			t.Errorf("%s: no operation", c.kind)
			continue
		}
		got := flat{op.String(), op.exchange, op.exchangeType, op.queue, op.key, op.passive, op.durable, op.autoDelete, op.internal}
		if op.kind != c.kind || got != c.want {
			t.Errorf("%s: got  %+v\nwant %+v", c.kind, got, c.want)
		}
	}
}

func TestOperationsThatABrokerWouldPunishAreRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		kind  decoder.Kind
		f     fields
		field string
	}{
		{decoder.KindExchangeDeclare, fields{'x': long}, "exchange"},
		{decoder.KindExchangeDeclare, fields{'x': "x", 'w': long}, "exchange type"},
		{decoder.KindQueueDeclare, fields{'q': long}, "queue"},
		{decoder.KindQueueBind, fields{'q': "q", 'x': "x", 'k': long}, "routing key"},
		{decoder.KindQueueDeclare, fields{'q': "q", 'f': "dz"}, "flag"},
		{decoder.KindQueueDeclare, fields{'q': "q", 'h': "[]"}, "headers"},
	} {
		_, err := routed(t, 1, envelope(c.kind, 1, c.f, ""), Headers{})
		var bad *InvalidError
		if !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%s %v: %v", c.kind, c.f, err)
		}
	}
}
