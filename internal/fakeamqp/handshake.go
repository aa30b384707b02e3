package fakeamqp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// channelMax is the number of channels a client may open.
const channelMax = 2047

// protocolHeader is what a client of AMQP 0-9-1 sends first.
const protocolHeader = "AMQP\x00\x00\x09\x01"

// handshake goes from the protocol header to connection.open-ok. It gives nil
// when the connection is open.
func (c *Conn) handshake() error {
	var header [8]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return err
	}
	if string(header[:]) != protocolHeader {
		c.write([]byte(protocolHeader))
		return fmt.Errorf("protocol header %q", header[:])
	}
	if err := c.login(); err != nil {
		return c.refused(err)
	}
	if err := c.tune(); err != nil {
		return err
	}
	return c.refused(c.openVHost())
}

// login is connection.start and start-ok.
func (c *Conn) login() error {
	start := []byte{0, 9}
	start = appendLong(start, serverProperties())
	start = appendLong(start, []byte("PLAIN"))
	start = appendLong(start, []byte("en_US"))
	a, err := c.ask(connectionStart, start, connectionStartOk)
	if err != nil {
		return err
	}
	c.Properties = a.long()
	mechanism, response := a.short(), a.long()
	a.short() // locale
	if err := a.err(connectionStartOk); err != nil {
		return err
	}
	parts := bytes.Split(response, []byte{0}) // identity, user, password
	if mechanism != "PLAIN" || len(parts) != 3 {
		return fmt.Errorf("mechanism %q with a response of %d parts", mechanism, len(parts))
	}
	c.User = string(parts[1])
	if c.server.config.Login != nil {
		return c.server.config.Login(c.User, string(parts[2]))
	}
	return nil
}

// tune is connection.tune and tune-ok.
func (c *Conn) tune() error {
	offer := binary.BigEndian.AppendUint16(nil, channelMax)
	offer = binary.BigEndian.AppendUint32(offer, c.server.config.FrameMax)
	offer = binary.BigEndian.AppendUint16(offer, uint16(c.server.config.Heartbeat/time.Second))
	a, err := c.ask(connectionTune, offer, connectionTuneOk)
	if err != nil {
		return err
	}
	a.uint16() // channel_max
	if m := a.uint32(); m != 0 {
		c.FrameMax = min(c.FrameMax, m)
	}
	c.Heartbeat = time.Duration(a.uint16()) * time.Second
	return a.err(connectionTuneOk)
}

// openVHost is connection.open and open-ok.
func (c *Conn) openVHost() error {
	a, err := c.ask(0, nil, connectionOpen)
	if err != nil {
		return err
	}
	c.VHost = a.short()
	if err := a.err(connectionOpen); err != nil {
		return err
	}
	if c.server.config.Open != nil {
		if err := c.server.config.Open(c.VHost); err != nil {
			return err
		}
	}
	c.write(methodFrame(0, connectionOpenOk, []byte{0}))
	return nil
}

// ask writes one method, 0 for none, and reads the answer, which must be reply.
func (c *Conn) ask(m method, b []byte, reply method) (*args, error) {
	if m != 0 {
		c.write(methodFrame(0, m, b))
	}
	for {
		f, err := readFrame(c.in, c.FrameMax)
		if err != nil {
			return nil, err
		}
		if f.kind == frameHeartbeat { // allowed from tune on
			continue
		}
		a := &args{b: f.payload}
		if got := method(a.uint32()); f.kind != frameMethod || f.channel != 0 || got != reply {
			return nil, fmt.Errorf("handshake: got frame type %d, method %d.%d", f.kind, got>>16, got&0xffff)
		}
		return a, nil
	}
}

// refused tells the client about a refusal of a hook and waits for its answer,
// so that the text is not lost in a reset. Other errors pass unchanged.
func (c *Conn) refused(err error) error {
	var r *Refusal
	if !errors.As(err, &r) {
		return err
	}
	c.Close(r.Code, r.Text)
	limit := time.AfterFunc(writeLimit, c.Drop)
	defer limit.Stop()
	_, _ = io.Copy(io.Discard, c.in) // close-ok, then the client's FIN
	return err
}

// serverProperties is the property table of connection.start: what a client
// looks at is the table of capabilities.
func serverProperties() []byte {
	var caps []byte
	for _, name := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
		"connection.blocked", "authentication_failure_close",
	} {
		caps = append(appendShort(caps, name), 't', 1)
	}
	props := append(appendShort(nil, "capabilities"), 'F')
	props = appendLong(props, caps)
	props = append(appendShort(props, "product"), 'S')
	return appendLong(props, []byte("fakeamqp"))
}
