package fakeamqp

import (
	"encoding/binary"
	"fmt"
)

// Channel is one channel. Its methods may be called from any goroutine; on a
// closed one they do nothing.
type Channel struct {
	Conn *Conn
	ID   uint16

	open bool // covered by Conn.mu; false: drop what comes until close-ok

	// Used by the reading goroutine only.
	confirm bool
	tag     uint64   // of the newest publish in confirm mode
	pending *Publish // announced, its content not yet complete
}

// Close closes the channel with a code, as the broker does after a bad
// operation. Publishes that arrive afterwards vanish, as they do in a broker.
func (ch *Channel) Close(code uint16, text string) { ch.closeFor(code, text, basicPublish) }

func (ch *Channel) closeFor(code uint16, text string, cause method) {
	ch.Conn.mu.Lock()
	defer ch.Conn.mu.Unlock()
	if ch.open {
		ch.Conn.writeLocked(methodFrame(ch.ID, channelClose, closeArgs(code, text, cause)))
		ch.open = false
	}
}

// write sends whole frames, unless the channel has been closed: a client takes
// a late confirm on a closed channel for a violation of the protocol.
func (ch *Channel) write(b []byte) {
	ch.Conn.mu.Lock()
	defer ch.Conn.mu.Unlock()
	if ch.open {
		ch.Conn.writeLocked(b)
	}
}

func (ch *Channel) isOpen() bool {
	ch.Conn.mu.Lock()
	defer ch.Conn.mu.Unlock()
	return ch.open
}

// method acts on one method of the client; an error ends the connection.
func (ch *Channel) method(m method, a *args) error {
	switch m {
	case channelClose:
		ch.end(methodFrame(ch.ID, channelCloseOk, nil))
		ch.Conn.server.events.Put(&ChannelClosed{Conn: ch.Conn, Channel: ch})
		return nil
	case channelCloseOk:
		ch.end(nil)
		return nil
	}
	if !ch.isOpen() {
		return nil
	}
	switch m {
	case confirmSelect:
		noWait := a.octet()&1 != 0
		ch.confirm = true
		if !noWait {
			ch.write(methodFrame(ch.ID, confirmSelectOk, nil))
		}
	case basicPublish:
		ch.announce(a)
	case exchangeDeclare, exchangeBind, queueDeclare, queueBind:
		ch.topology(m, a)
	default:
		ch.Conn.closeFor(540, fmt.Sprintf("NOT_IMPLEMENTED - method %d.%d", m>>16, m&0xffff), m)
	}
	return a.err(m)
}

// end forgets the channel, so that the client may open its number again.
func (ch *Channel) end(reply []byte) {
	ch.Conn.mu.Lock()
	defer ch.Conn.mu.Unlock()
	if reply != nil {
		ch.Conn.writeLocked(reply)
	}
	ch.open = false
	delete(ch.Conn.channels, ch.ID)
}

// announce is basic.publish: it says where a message goes, content follows.
func (ch *Channel) announce(a *args) {
	p := &Publish{Conn: ch.Conn, Channel: ch}
	a.uint16()
	p.Exchange, p.Key = a.short(), a.short()
	bits := a.octet()
	p.Mandatory, p.Immediate = bits&1 != 0, bits&2 != 0
	ch.pending = p
}

// content takes a header or body frame. It gives false if none was expected.
func (ch *Channel) content(f frame) bool {
	if !ch.isOpen() {
		return true
	}
	p := ch.pending
	switch {
	case p == nil, f.kind == frameHeader && p.Raw != nil, f.kind == frameBody && p.Raw == nil:
		return false
	case f.kind == frameHeader:
		a := &args{b: f.payload}
		a.uint32() // class and weight
		p.size = a.uint64()
		p.Raw = a.b
		if !p.Properties.parse(p.Raw) || a.bad {
			return false
		}
	default:
		p.Body = append(p.Body, f.payload...)
	}
	if uint64(len(p.Body)) >= p.size {
		ch.pending = nil
		ch.publish(p)
	}
	return true
}

// publish is a complete message: refuse it as a broker does, or have it decided.
func (ch *Channel) publish(p *Publish) {
	s := ch.Conn.server
	switch {
	case p.Immediate:
		ch.refuse(&Refusal{540, "NOT_IMPLEMENTED - immediate=true"}, basicPublish)
		return
	case !s.exchanges.exists(p.Exchange):
		ch.refuse(ch.missing("exchange", p.Exchange), basicPublish)
		return
	}
	if ch.confirm {
		ch.tag++
		p.Tag = ch.tag
	}
	verdict := Hold
	if s.config.Handler != nil {
		verdict = s.config.Handler(p)
	}
	s.events.Put(p) // first, so that whoever sees the answer finds the event
	p.apply(verdict)
}

// missing is what a broker says about a name it does not know.
func (ch *Channel) missing(kind, name string) *Refusal {
	return &Refusal{404, fmt.Sprintf("NOT_FOUND - no %s '%s' in vhost '%s'", kind, name, ch.Conn.VHost)}
}

// refuse closes what the code calls for, the connection or only the channel.
func (ch *Channel) refuse(r *Refusal, cause method) {
	if r.hard() {
		ch.Conn.closeFor(r.Code, r.Text, cause)
	} else {
		ch.closeFor(r.Code, r.Text, cause)
	}
}

// queueDeclareOkArgs encodes a queue without messages and consumers.
func queueDeclareOkArgs(name string) []byte {
	return binary.BigEndian.AppendUint64(appendShort(nil, name), 0)
}
