package fakeamqp

import (
	"encoding/binary"
	"fmt"
)

// Publish is one published message. The methods answer it; calling none is an
// answer too: the confirm that never comes. They may be called in any order,
// from any goroutine, and do nothing once the channel is closed.
type Publish struct {
	Conn    *Conn
	Channel *Channel
	// Tag is the delivery tag, from 1 on each channel; 0 outside confirm mode.
	Tag uint64

	Exchange, Key        string
	Mandatory, Immediate bool
	Properties           Properties
	// Raw is the encoded properties: flags, then values.
	Raw  []byte
	Body []byte

	size uint64
}

// Properties are the properties of a message that were present. Headers is the
// undecoded table.
type Properties struct {
	ContentType, ContentEncoding       string
	Headers                            []byte
	DeliveryMode, Priority             uint8
	CorrelationID, ReplyTo, Expiration string
	MessageID                          string
	Timestamp                          uint64 // seconds of Unix time
	Type, UserID, AppID                string
}

// parse gives false if the bytes are cut short or left over.
func (p *Properties) parse(raw []byte) bool {
	a := &args{b: raw}
	flags := a.uint16()
	has := func(bit int) bool { return flags&(1<<bit) != 0 }
	short := func(bit int, to *string) {
		if has(bit) {
			*to = a.short()
		}
	}
	short(15, &p.ContentType)
	short(14, &p.ContentEncoding)
	if has(13) {
		p.Headers = a.long()
	}
	if has(12) {
		p.DeliveryMode = a.octet()
	}
	if has(11) {
		p.Priority = a.octet()
	}
	short(10, &p.CorrelationID)
	short(9, &p.ReplyTo)
	short(8, &p.Expiration)
	short(7, &p.MessageID)
	if has(6) {
		p.Timestamp = a.uint64()
	}
	short(5, &p.Type)
	short(4, &p.UserID)
	short(3, &p.AppID)
	return !a.bad && len(a.b) == 0
}

func (p *Publish) String() string {
	return fmt.Sprintf("conn %d channel %d publish %d to %q key %q, message id %q, %d bytes",
		p.Conn.ID, p.Channel.ID, p.Tag, p.Exchange, p.Key, p.Properties.MessageID, len(p.Body))
}

// Ack confirms this message.
func (p *Publish) Ack() { p.settle(basicAck, false) }

// AckMultiple confirms this message and all unanswered ones before it.
func (p *Publish) AckMultiple() { p.settle(basicAck, true) }

// Nack refuses this message.
func (p *Publish) Nack() { p.settle(basicNack, false) }

// NackMultiple refuses this message and all unanswered ones before it.
func (p *Publish) NackMultiple() { p.settle(basicNack, true) }

// Return gives the message back as a mandatory one that reached no queue; a
// broker says 312, "NO_ROUTE". It confirms nothing: a broker acks right after.
func (p *Publish) Return(code uint16, text string) {
	b := binary.BigEndian.AppendUint16(nil, code)
	for _, s := range []string{text, p.Exchange, p.Key} {
		b = appendShort(b, s)
	}
	b = methodFrame(p.Channel.ID, basicReturn, b)
	p.Channel.write(append(b, contentFrames(p.Channel.ID, p.Raw, p.Body, p.Conn.FrameMax)...))
}

func (p *Publish) settle(m method, multiple bool) {
	if p.Tag != 0 {
		p.Channel.write(methodFrame(p.Channel.ID, m, confirmArgs(p.Tag, multiple)))
	}
}

// Verdict is what a Handler decides about a message.
type Verdict int

// What a Handler may decide. Hold leaves the answer to whoever has the Publish.
const (
	Hold       Verdict = iota
	Ack                // confirm
	Nack               // refuse
	Unroutable         // if mandatory return with 312, then confirm
)

// AckAll is a Handler that confirms everything.
func AckAll(*Publish) Verdict { return Ack }

func (p *Publish) apply(v Verdict) {
	switch v {
	case Ack:
		p.Ack()
	case Nack:
		p.Nack()
	case Unroutable:
		if p.Mandatory {
			p.Return(312, "NO_ROUTE")
		}
		p.Ack()
	case Hold:
	}
}
