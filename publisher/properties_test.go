package publisher

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

func TestEnvelopeBecomesProperties(t *testing.T) {
	e := parsed(t, envelope(decoder.KindPublish, 1, fields{
		'x': "ex", 'k': "key", 'm': "1", 't': "text/plain", 'n': "gzip", 'y': "reply", 'c': "corr", 'h': `{"a": 1}`,
		'i': "id", 'p': "7", 'e': "1000", 'w': "type", 'a': "app", 'u': "user", 's': "1700000000",
	}, "body"))
	got, err := properties(&e)
	want := amqp.Publishing{
		Headers: amqp.Table{"a": int64(1)}, ContentType: "text/plain", ContentEncoding: "gzip", DeliveryMode: 1,
		Priority: 7, CorrelationId: "corr", ReplyTo: "reply", Expiration: "1000", MessageId: "id",
		Timestamp: time.Unix(1700000000, 0).UTC(), Type: "type", UserId: "user", AppId: "app", Body: []byte("body"),
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, want -, got +:\n%s", err, diff)
	}
}

func TestMessageIsPersistentUnlessItAsksForLess(t *testing.T) {
	for mode, want := range map[string]uint8{"": 2, "2": 2, "1": 1} {
		e := decoder.Envelope{DeliveryMode: mode}
		if p, err := properties(&e); err != nil || p.DeliveryMode != want {
			t.Errorf("%q: %d, %v", mode, p.DeliveryMode, err)
		}
	}
}

// One byte more, and the library or the broker closes channel or connection.
func TestShortStringsEndAt255Bytes(t *testing.T) {
	for name, set := range map[string]func(*decoder.Envelope, string){
		"exchange":         func(e *decoder.Envelope, s string) { e.Exchange = s },
		"routing key":      func(e *decoder.Envelope, s string) { e.RoutingKey = s },
		"content_type":     func(e *decoder.Envelope, s string) { e.ContentType = s },
		"content_encoding": func(e *decoder.Envelope, s string) { e.ContentEncoding = s },
		"correlation_id":   func(e *decoder.Envelope, s string) { e.CorrelationID = s },
		"reply_to":         func(e *decoder.Envelope, s string) { e.ReplyTo = s },
		"message_id":       func(e *decoder.Envelope, s string) { e.MessageID = s },
		"type":             func(e *decoder.Envelope, s string) { e.Type = s },
		"user_id":          func(e *decoder.Envelope, s string) { e.UserID = s },
		"app_id":           func(e *decoder.Envelope, s string) { e.AppID = s },
	} {
		var fits, long, wide decoder.Envelope
		set(&fits, strings.Repeat("x", 255))
		set(&long, strings.Repeat("x", 256))
		set(&wide, strings.Repeat("ü", 128)) // bytes count, not letters
		if _, err := properties(&fits); err != nil {
			t.Errorf("%s of 255 bytes: %v", name, err)
		}
		for _, e := range []decoder.Envelope{long, wide} {
			var bad *InvalidError
			if _, err := properties(&e); !errors.As(err, &bad) || bad.Field != name {
				t.Errorf("%s of 256 bytes: %v", name, err)
			}
		}
	}
}

func TestPropertyLimits(t *testing.T) {
	for _, c := range []struct {
		e    decoder.Envelope
		want string // the field that is refused, "" for none
	}{
		{decoder.Envelope{DeliveryMode: "0"}, "delivery_mode"},
		{decoder.Envelope{DeliveryMode: "3"}, "delivery_mode"},
		{decoder.Envelope{DeliveryMode: "two"}, "delivery_mode"},
		{decoder.Envelope{Priority: "0"}, ""},
		{decoder.Envelope{Priority: "255"}, ""},
		{decoder.Envelope{Priority: "256"}, "priority"},
		{decoder.Envelope{Priority: "-1"}, "priority"},
		{decoder.Envelope{Priority: "1.5"}, "priority"},
		{decoder.Envelope{Expiration: "0"}, ""},
		{decoder.Envelope{Expiration: "4294967295"}, ""},
		{decoder.Envelope{Expiration: "4294967296"}, "expiration"},
		{decoder.Envelope{Expiration: "-1"}, "expiration"},
		{decoder.Envelope{Expiration: "1s"}, "expiration"},
		{decoder.Envelope{Timestamp: "0"}, ""},
		{decoder.Envelope{Timestamp: "253402300799"}, ""},
		{decoder.Envelope{Timestamp: "253402300800"}, "timestamp"},
		{decoder.Envelope{Timestamp: "-1"}, "timestamp"},
		{decoder.Envelope{Timestamp: "now"}, "timestamp"},
		{decoder.Envelope{ReplyTo: "amq.rabbitmq.reply-to"}, "reply_to"},
		{decoder.Envelope{ReplyTo: "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAbG9jYWxob3N0"}, ""},
		{decoder.Envelope{Headers: "{}"}, ""},
		{decoder.Envelope{Headers: "[]"}, "headers"},
		{decoder.Envelope{Headers: `{"CC": "a"}`}, "header CC"},
		{decoder.Envelope{Headers: `{"BCC": [1]}`}, "header BCC"},
	} {
		_, err := properties(&c.e)
		var bad *InvalidError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &bad) || bad.Field != c.want) {
			t.Errorf("%+v: %v, want %q refused", c.e, err, c.want)
		}
	}
}

// A timestamp of 1970 is one; the library takes the zero time for none.
func TestTimestampOf1970IsSent(t *testing.T) {
	e := decoder.Envelope{Timestamp: "0"}
	if p, err := properties(&e); err != nil || p.Timestamp.IsZero() {
		t.Errorf("%v, %v", p.Timestamp, err)
	}
}
