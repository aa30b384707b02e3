package publisher

import (
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

// maxShortString is the limit of the protocol for exchange, routing key, header
// keys and all text properties. The library tears down the whole connection when
// it meets a longer one.
const maxShortString = 255

// maxTimestamp is 9999-12-31T23:59:59Z. Beyond it, and before 1970, brokers and
// clients disagree.
const maxTimestamp = 253402300799

// InvalidError says that a message can never be sent as it is.
type InvalidError struct {
	Field, Problem string
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Problem }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// properties converts and checks what the envelope says. The SQL functions have
// checked the same: this is for envelopes that did not come from them, and for the
// sake of the messages that share a connection with this one.
func properties(e *decoder.Envelope) (amqp.Publishing, error) {
	p := amqp.Publishing{
		ContentType:     e.ContentType,
		ContentEncoding: e.ContentEncoding,
		CorrelationId:   e.CorrelationID,
		ReplyTo:         e.ReplyTo,
		Expiration:      e.Expiration,
		MessageId:       e.MessageID,
		Type:            e.Type,
		UserId:          e.UserID,
		AppId:           e.AppID,
		Body:            e.Body,
	}
	for _, s := range [...]struct{ field, value string }{
		{"exchange", e.Exchange},
		{"routing key", e.RoutingKey},
		{"content_type", e.ContentType},
		{"content_encoding", e.ContentEncoding},
		{"correlation_id", e.CorrelationID},
		{"reply_to", e.ReplyTo},
		{"expiration", e.Expiration},
		{"message_id", e.MessageID},
		{"type", e.Type},
		{"user_id", e.UserID},
		{"app_id", e.AppID},
	} {
		if len(s.value) > maxShortString {
			return p, invalid(s.field, "has %d bytes, the protocol allows %d", len(s.value), maxShortString)
		}
	}
	// The broker closes the channel for this one: it belongs to consumers.
	if e.ReplyTo == "amq.rabbitmq.reply-to" {
		return p, invalid("reply_to", "names the direct reply queue, which only a consumer has")
	}
	var err error
	if p.DeliveryMode, err = deliveryMode(e.DeliveryMode); err != nil {
		return p, err
	}
	if e.Priority != "" {
		n, err := strconv.ParseUint(e.Priority, 10, 8)
		if err != nil {
			return p, invalid("priority", "is %q, not a number from 0 to 255", e.Priority)
		}
		p.Priority = uint8(n)
	}
	if e.Expiration != "" {
		if _, err := strconv.ParseUint(e.Expiration, 10, 32); err != nil {
			return p, invalid("expiration", "is %q, not milliseconds from 0 to 4294967295", e.Expiration)
		}
	}
	if e.Timestamp != "" {
		n, err := strconv.ParseInt(e.Timestamp, 10, 64)
		if err != nil || n < 0 || n > maxTimestamp {
			return p, invalid("timestamp", "is %q, not seconds since 1970 up to year 9999", e.Timestamp)
		}
		p.Timestamp = time.Unix(n, 0).UTC()
	}
	if e.Headers != "" {
		if p.Headers, err = parseHeaders(e.Headers); err != nil {
			return p, err
		}
		if err := checkRoutingHeaders(p.Headers); err != nil {
			return p, err
		}
	}
	return p, nil
}

func deliveryMode(s string) (uint8, error) {
	switch s {
	case "", "2": // persistent unless the message asks for less
		return amqp.Persistent, nil
	case "1":
		return amqp.Transient, nil
	}
	return 0, invalid("delivery_mode", "is %q, not 1 (transient) or 2 (persistent)", s)
}

// checkRoutingHeaders checks the two headers that the broker itself reads: it
// closes the channel when they are not arrays.
func checkRoutingHeaders(t amqp.Table) error {
	for _, key := range [...]string{"CC", "BCC"} {
		v, ok := t[key]
		if !ok {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return invalid("header "+key, "is not an array of routing keys")
		}
		for _, k := range list {
			if _, ok := k.(string); !ok {
				return invalid("header "+key, "holds %T, not only routing keys", k)
			}
		}
	}
	return nil
}

// headerFrameSize returns the size of the content header frame's payload. The
// broker takes it as one frame and closes the connection if it is larger than
// the negotiated size.
func headerFrameSize(p *amqp.Publishing) int {
	n := 2 + 2 + 8 + 2 // class, weight, body size, flags
	for _, s := range [...]string{
		p.ContentType, p.ContentEncoding, p.CorrelationId, p.ReplyTo, p.Expiration,
		p.MessageId, p.Type, p.UserId, p.AppId,
	} {
		if s != "" {
			n += 1 + len(s)
		}
	}
	n += 1 + 1 + 8 // delivery mode, priority, timestamp: at most
	if len(p.Headers) > 0 {
		n += tableSize(p.Headers)
	}
	return n
}

func tableSize(t amqp.Table) int {
	n := 4
	for k, v := range t {
		n += 1 + len(k) + fieldSize(v)
	}
	return n
}

func fieldSize(v any) int {
	switch v := v.(type) {
	case nil:
		return 1
	case bool, int8, uint8:
		return 2
	case int16, uint16:
		return 3
	case int32, uint32, float32:
		return 5
	case amqp.Decimal:
		return 6
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case []any:
		n := 5
		for _, e := range v {
			n += fieldSize(e)
		}
		return n
	case amqp.Table:
		return 1 + tableSize(v)
	default: // int64, float64, time.Time
		return 9
	}
}
