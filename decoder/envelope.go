package decoder

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Prefix is the message prefix of the SQL functions; compared exactly.
const Prefix = "amqp"

// envelopeVersion is the only version there is so far. A daemon that meets a newer
// one parks the message: redelivering it after an upgrade loses nothing.
const envelopeVersion = 1

// Kind says what an envelope asks for.
type Kind byte

// The kinds of envelopes, as written by the SQL functions.
const (
	KindPublish         Kind = 'p'
	KindExchangeDeclare Kind = 'x'
	KindQueueDeclare    Kind = 'q'
	KindQueueBind       Kind = 'b'
	KindExchangeBind    Kind = 'e'
	KindDisconnect      Kind = 'd'
	// KindBrokersChanged says that the table amqp.broker was changed.
	KindBrokersChanged Kind = 'c'
	// KindPing asks for nothing; confirming it brings an idle slot forward at once.
	KindPing Kind = 'n'
	// KindHeartbeat is the daemon's own probe of the whole path; its body is a nonce.
	KindHeartbeat Kind = 'h'
	// KindRoutesChanged says that the table amqp.route was changed.
	KindRoutesChanged Kind = 'r'
	// KindSnapshotsChanged says that a snapshot was asked for, stopped or resumed.
	KindSnapshotsChanged Kind = 's'
	// KindSnapshotChunk is the place in the stream of rows that a snapshot has read.
	KindSnapshotChunk Kind = 'w'
)

// String returns the name of the SQL function behind the kind.
func (k Kind) String() string {
	switch k {
	case KindPublish:
		return "publish"
	case KindExchangeDeclare:
		return "exchange_declare"
	case KindQueueDeclare:
		return "queue_declare"
	case KindQueueBind:
		return "queue_bind"
	case KindExchangeBind:
		return "exchange_bind"
	case KindDisconnect:
		return "disconnect"
	case KindBrokersChanged:
		return "brokers_changed"
	case KindPing:
		return "ping"
	case KindHeartbeat:
		return "heartbeat"
	case KindRoutesChanged:
		return "routes_changed"
	case KindSnapshotsChanged:
		return "snapshots_changed"
	case KindSnapshotChunk:
		return "snapshot_chunk"
	}
	return fmt.Sprintf("unknown kind %q", byte(k))
}

// Envelope is the content of one message, read but not judged: values are text as
// the SQL function wrote them. A field that is absent is the empty string.
type Envelope struct {
	Kind     Kind
	BrokerID int32

	Exchange        string
	RoutingKey      string
	Queue           string // queue, or the destination of an exchange binding
	DeliveryMode    string
	ContentType     string
	ContentEncoding string
	ReplyTo         string
	CorrelationID   string
	Headers         string // a JSON object; for declarations, the arguments
	MessageID       string
	Priority        string
	Expiration      string
	Type            string // for exchange_declare, the exchange type
	AppID           string
	UserID          string
	Timestamp       string // seconds since 1970
	Flags           string
	Role            string // session_user of the caller
	// Origin is the ID of the first emission; set only when a dead letter is redelivered.
	Origin string

	// Body is a part of the content that was parsed, not a copy.
	Body []byte
	// head is the length of everything before the body.
	head int
}

// field returns where the value of a tag is kept, nil for an unknown tag.
func (e *Envelope) field(tag byte) *string {
	switch tag {
	case 'x':
		return &e.Exchange
	case 'k':
		return &e.RoutingKey
	case 'q':
		return &e.Queue
	case 'm':
		return &e.DeliveryMode
	case 't':
		return &e.ContentType
	case 'n':
		return &e.ContentEncoding
	case 'y':
		return &e.ReplyTo
	case 'c':
		return &e.CorrelationID
	case 'h':
		return &e.Headers
	case 'i':
		return &e.MessageID
	case 'p':
		return &e.Priority
	case 'e':
		return &e.Expiration
	case 'w':
		return &e.Type
	case 'a':
		return &e.AppID
	case 'u':
		return &e.UserID
	case 's':
		return &e.Timestamp
	case 'f':
		return &e.Flags
	case 'r':
		return &e.Role
	case originTag:
		return &e.Origin
	}
	return nil
}

const (
	originTag   = 'o'
	fixedHead   = 1 + 1 + 4
	fieldHead   = 4
	maxFieldLen = 1<<24 - 1
	maxIdentity = 255
)

// EnvelopeError says that a content is no envelope, or not one of a version that
// this program reads.
type EnvelopeError struct{ Reason string }

func (e *EnvelopeError) Error() string { return "read envelope: " + e.Reason }

func envelopeError(format string, args ...any) error {
	return &EnvelopeError{Reason: fmt.Sprintf(format, args...)}
}

// ParseEnvelope reads the content of a message with prefix "amqp". Its strings are
// parts of one copy of everything before the body: who keeps one for long keeps all of
// them, and should clone it. Its body is a part of content. An error is an
// *EnvelopeError: anybody who may call pg_logical_emit_message can write any bytes.
func ParseEnvelope(content []byte) (Envelope, error) {
	var e Envelope
	if len(content) < fixedHead {
		return e, envelopeError("%d bytes are too short", len(content))
	}
	if content[0] != envelopeVersion {
		return e, envelopeError("version %d is not known; a newer pgamqp may read it", content[0])
	}
	e.Kind = Kind(content[1])
	switch e.Kind {
	case KindPublish, KindExchangeDeclare, KindQueueDeclare, KindQueueBind, KindExchangeBind,
		KindDisconnect, KindBrokersChanged, KindPing, KindHeartbeat, KindRoutesChanged,
		KindSnapshotsChanged, KindSnapshotChunk:
	default:
		return e, envelopeError("%s; a newer pgamqp may read it", e.Kind)
	}
	e.BrokerID = int32(binary.BigEndian.Uint32(content[2:]))

	end, err := endOfFields(content)
	if err != nil {
		return e, err
	}
	e.head, e.Body = end, content[end:]
	// One string for all fields: one for each would be three allocations for the usual
	// message, and 18 for one with all properties.
	fields := string(content[fixedHead : end-fieldHead])
	for len(fields) > 0 {
		tag, n := fieldAt(content[end-fieldHead-len(fields):])
		text := fields[fieldHead : fieldHead+n]
		fields = fields[fieldHead+n:]
		value := e.field(tag)
		switch {
		case value == nil:
			return e, envelopeError("field %q is not known; a newer pgamqp may read it", tag)
		case *value != "":
			return e, envelopeError("field %q is given twice", tag)
		case n == 0:
			return e, envelopeError("field %q is empty", tag)
		case !utf8.ValidString(text):
			return e, envelopeError("field %q is not UTF-8", tag)
		case tag == originTag && !isIdentity(text):
			return e, envelopeError("field %q is no identity of a message", tag)
		}
		*value = text
	}
	return e, nil
}

// fieldAt reads the head of a field.
func fieldAt(b []byte) (tag byte, length int) {
	head := binary.BigEndian.Uint32(b)
	return byte(head >> 24), int(head & maxFieldLen)
}

// endOfFields returns where the body of an envelope begins.
func endOfFields(content []byte) (int, error) {
	for at := fixedHead; ; {
		if len(content)-at < fieldHead {
			return 0, envelopeError("the fields have no end")
		}
		tag, n := fieldAt(content[at:])
		at += fieldHead
		if tag == 0 && n == 0 {
			return at, nil
		}
		if n > len(content)-at {
			return 0, envelopeError("field %q is cut off", tag)
		}
		at += n
	}
}

// isIdentity tells whether b can be an ID that a message was first sent with. It becomes
// the message_id and the key of the dead letter, so what neither can hold would be tried
// again for ever.
func isIdentity(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxIdentity
}

// SplitWithOrigin returns head and body of the content that e was parsed from, for
// safe keeping: emitted again one after the other, they are the same message. The
// head carries origin, so that a redelivery keeps the message's first identity.
func (e *Envelope) SplitWithOrigin(content []byte, origin string) (head, body []byte) {
	if e.Origin != "" {
		return content[:e.head], content[e.head:]
	}
	head = make([]byte, 0, e.head+fieldHead+len(origin))
	head = append(head, content[:fixedHead]...)
	head = binary.BigEndian.AppendUint32(head, originTag<<24|uint32(len(origin)))
	head = append(head, origin...)
	head = append(head, content[fixedHead:e.head]...)
	return head, content[e.head:]
}
