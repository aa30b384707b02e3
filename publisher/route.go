package publisher

import (
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

// Headers chooses the headers that the daemon adds on its own. They are off by
// default: headers cost the broker most of all.
type Headers struct {
	LSN, XID, CommitTime, Role bool
}

// request is one thing a lane owes its broker, read and checked: either a
// publication or an operation on the topology.
type request struct {
	exchange, key string
	mandatory     bool
	properties    amqp.Publishing // includes the body
	operation     *operation      // nil for a publication
}

// target is what a broker may refuse as a whole: the first message to one is sent
// alone, so that a refusal takes no other message along. The user is a part of
// it: a message in the name of another user is refused like a missing exchange.
type target struct{ exchange, user string }

func (r *request) target() target {
	return target{exchange: r.exchange, user: r.properties.UserId}
}

// clone is for a target that is kept: its strings may share memory with all that stands
// before the body of a message.
func (t target) clone() target {
	return target{exchange: strings.Clone(t.exchange), user: strings.Clone(t.user)}
}

// route turns an envelope into what its broker is asked for. It is pure: equal
// messages give equal requests, so a redelivery is the same message. An error is
// an *InvalidError or wraps one.
func route(m *decoder.Message, e *decoder.Envelope, add Headers) (request, error) {
	switch e.Kind {
	case decoder.KindPublish:
	case decoder.KindDisconnect:
		return request{operation: &operation{kind: e.Kind}}, nil
	default:
		op, err := newOperation(e)
		return request{exchange: e.Exchange, operation: op}, err
	}
	p, err := properties(e)
	if err != nil {
		return request{}, err
	}
	if p.MessageId == "" {
		p.MessageId = identityOf(m, e)
	}
	if add != (Headers{}) {
		p.Headers = addHeaders(p.Headers, m, e, add)
	}
	return request{
		exchange:   e.Exchange,
		key:        e.RoutingKey,
		mandatory:  e.Flags != "u",
		properties: p,
	}, nil
}

// identityOf returns the message's own identity: that of its first emission.
func identityOf(m *decoder.Message, e *decoder.Envelope) string {
	if e.Origin != "" {
		return e.Origin
	}
	return m.ID
}

func addHeaders(t amqp.Table, m *decoder.Message, e *decoder.Envelope, add Headers) amqp.Table {
	if t == nil {
		t = make(amqp.Table, 4)
	}
	if add.LSN {
		t["x-pg-lsn"] = m.LSN.String()
	}
	if add.XID && m.XID != 0 {
		t["x-pg-xid"] = int64(m.XID)
	}
	if add.CommitTime && !m.CommitTime.IsZero() {
		t["x-pg-commit-time"] = m.CommitTime.Format(time.RFC3339Nano)
	}
	if add.Role && e.Role != "" {
		t["x-pg-role"] = e.Role
	}
	return t
}
