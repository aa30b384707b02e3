package fakeamqp

import (
	"errors"
	"fmt"
)

// Topology is a declaration or a binding. As an event it is decided; Refused
// says how.
type Topology struct {
	Conn    *Conn
	Channel *Channel
	// Op is exchange.declare, exchange.bind, queue.declare or queue.bind.
	Op string
	// Name is what is declared, or the destination of a binding.
	Name string
	// Source and Key belong to a binding, Type to an exchange.
	Source, Key, Type string

	Passive, Durable, AutoDelete, Internal, Exclusive bool
	// Arguments is the undecoded table.
	Arguments []byte
	// Refused is nil if the answer was ok.
	Refused *Refusal

	noWait bool
}

func (t *Topology) String() string {
	return fmt.Sprintf("conn %d %s %q, source %q, key %q, passive %t, refused: %v",
		t.Conn.ID, t.Op, t.Name, t.Source, t.Key, t.Passive, t.Refused)
}

// parse reads the arguments; the order of the flags differs between methods.
func (t *Topology) parse(m method, a *args) {
	a.uint16()
	t.Name = a.short()
	switch m {
	case exchangeDeclare:
		t.Op, t.Type = "exchange.declare", a.short()
		bits := a.octet()
		t.Passive, t.Durable, t.AutoDelete = bits&1 != 0, bits&2 != 0, bits&4 != 0
		t.Internal, t.noWait = bits&8 != 0, bits&16 != 0
	case queueDeclare:
		t.Op = "queue.declare"
		bits := a.octet()
		t.Passive, t.Durable, t.Exclusive = bits&1 != 0, bits&2 != 0, bits&4 != 0
		t.AutoDelete, t.noWait = bits&8 != 0, bits&16 != 0
	case exchangeBind, queueBind:
		t.Op = map[method]string{exchangeBind: "exchange.bind", queueBind: "queue.bind"}[m]
		t.Source, t.Key = a.short(), a.short()
		t.noWait = a.octet()&1 != 0
	}
	t.Arguments = a.long()
}

// topology answers a declaration or binding and makes it an event.
func (ch *Channel) topology(m method, a *args) {
	t := &Topology{Conn: ch.Conn, Channel: ch}
	t.parse(m, a)
	if a.bad {
		return // the caller ends the connection for it
	}
	s := ch.Conn.server
	if m == queueDeclare && t.Name == "" {
		t.Name = fmt.Sprintf("amq.gen-%d-%d", ch.Conn.ID, ch.ID)
	}
	t.Refused = ch.check(m, t)
	var r *Refusal
	if t.Refused == nil && s.config.Declare != nil && errors.As(s.config.Declare(t), &r) {
		t.Refused = r
	}
	s.events.Put(t) // first, so that whoever sees the answer finds the event
	if t.Refused != nil {
		ch.refuse(t.Refused, m)
	} else {
		ch.accept(m, t)
	}
}

// check refuses what refers to something missing.
func (ch *Channel) check(m method, t *Topology) *Refusal {
	s := ch.Conn.server
	switch {
	case (m == exchangeBind || m == exchangeDeclare && t.Passive) && !s.exchanges.exists(t.Name):
		return ch.missing("exchange", t.Name)
	case (m == queueBind || m == queueDeclare && t.Passive) && !s.queues.exists(t.Name):
		return ch.missing("queue", t.Name)
	case (m == exchangeBind || m == queueBind) && !s.exchanges.exists(t.Source):
		return ch.missing("exchange", t.Source)
	}
	return nil
}

func (ch *Channel) accept(m method, t *Topology) {
	s, reply, b := ch.Conn.server, m+1, []byte(nil) // every -ok follows its method
	switch m {
	case exchangeDeclare:
		s.exchanges.set(t.Name, true)
	case queueDeclare:
		s.queues.set(t.Name, true)
		b = queueDeclareOkArgs(t.Name)
	}
	if !t.noWait {
		ch.write(methodFrame(ch.ID, reply, b))
	}
}
