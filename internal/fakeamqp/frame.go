package fakeamqp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Frame types of AMQP 0-9-1, and the octet every frame ends with.
const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE

	// frameOverhead is what a frame costs beside its payload; frame_max counts it.
	frameOverhead = 8
)

// method is a class and method number, written class<<16 | method.
type method uint32

// The methods this server reads or writes, by the names of the specification.
const (
	connectionStart     method = 10<<16 | 10
	connectionStartOk   method = 10<<16 | 11
	connectionTune      method = 10<<16 | 30
	connectionTuneOk    method = 10<<16 | 31
	connectionOpen      method = 10<<16 | 40
	connectionOpenOk    method = 10<<16 | 41
	connectionClose     method = 10<<16 | 50
	connectionCloseOk   method = 10<<16 | 51
	connectionBlocked   method = 10<<16 | 60
	connectionUnblocked method = 10<<16 | 61
	channelOpen         method = 20<<16 | 10
	channelOpenOk       method = 20<<16 | 11
	channelClose        method = 20<<16 | 40
	channelCloseOk      method = 20<<16 | 41
	exchangeDeclare     method = 40<<16 | 10
	exchangeDeclareOk   method = 40<<16 | 11
	exchangeBind        method = 40<<16 | 30
	exchangeBindOk      method = 40<<16 | 31
	queueDeclare        method = 50<<16 | 10
	queueDeclareOk      method = 50<<16 | 11
	queueBind           method = 50<<16 | 20
	queueBindOk         method = 50<<16 | 21
	basicPublish        method = 60<<16 | 40
	basicReturn         method = 60<<16 | 50
	basicAck            method = 60<<16 | 80
	basicNack           method = 60<<16 | 120
	confirmSelect       method = 85<<16 | 10
	confirmSelectOk     method = 85<<16 | 11
)

type frame struct {
	kind    byte
	channel uint16
	payload []byte
}

// errFrameTooLarge says in RabbitMQ's words that a frame exceeds the negotiated size.
type errFrameTooLarge struct {
	kind        byte
	size, limit uint32
}

func (e *errFrameTooLarge) Error() string {
	return fmt.Sprintf("type %d, all octets = <<>>: {frame_too_large,%d,%d}", e.kind, e.size, e.limit)
}

// readFrame reads one frame. A frame that with its overhead exceeds limit is
// skipped and gives errFrameTooLarge, so that reading can go on behind it.
func readFrame(r *bufio.Reader, limit uint32) (frame, error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[3:])
	if uint64(size)+frameOverhead > uint64(limit) {
		if _, err := io.CopyN(io.Discard, r, int64(size)+1); err != nil {
			return frame{}, fmt.Errorf("frame cut short: %w", err)
		}
		return frame{}, &errFrameTooLarge{head[0], size, limit - frameOverhead}
	}
	rest := make([]byte, size+1)
	if _, err := io.ReadFull(r, rest); err != nil {
		return frame{}, fmt.Errorf("frame cut short: %w", err)
	}
	if rest[size] != frameEnd {
		return frame{}, fmt.Errorf("frame ends with %#x, want %#x", rest[size], frameEnd)
	}
	return frame{kind: head[0], channel: binary.BigEndian.Uint16(head[1:]), payload: rest[:size]}, nil
}

// appendFrame adds one frame to b.
func appendFrame(b []byte, kind byte, channel uint16, payload []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return append(b, frameEnd)
}

// methodFrame is a whole method frame with these encoded arguments.
func methodFrame(channel uint16, m method, args []byte) []byte {
	payload := binary.BigEndian.AppendUint32(nil, uint32(m))
	return appendFrame(nil, frameMethod, channel, append(payload, args...))
}

// contentFrames is the header frame and the body frames of one message.
// properties is the encoded flags and values, as a publish carried them.
func contentFrames(channel uint16, properties, body []byte, frameMax uint32) []byte {
	head := binary.BigEndian.AppendUint16(nil, 60)
	head = binary.BigEndian.AppendUint16(head, 0)
	head = binary.BigEndian.AppendUint64(head, uint64(len(body)))
	b := appendFrame(nil, frameHeader, channel, append(head, properties...))
	for len(body) > 0 {
		n := min(len(body), int(frameMax)-frameOverhead)
		b = appendFrame(b, frameBody, channel, body[:n])
		body = body[n:]
	}
	return b
}

// closeArgs encodes the arguments of connection.close and channel.close; cause
// is the method the client is blamed for, 0 for none.
func closeArgs(code uint16, text string, cause method) []byte {
	b := binary.BigEndian.AppendUint16(nil, code)
	b = appendShort(b, text)
	return binary.BigEndian.AppendUint32(b, uint32(cause))
}

// confirmArgs encodes the arguments of basic.ack and basic.nack.
func confirmArgs(tag uint64, multiple bool) []byte {
	b := binary.BigEndian.AppendUint64(nil, tag)
	if multiple {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendShort(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

func appendLong(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// args reads the arguments of a method. The first short read makes it bad, and
// everything read afterwards is zero: the caller checks once, at the end.
type args struct {
	b   []byte
	bad bool
}

func (a *args) take(n int) []byte {
	if a.bad || n > len(a.b) {
		a.bad = true
		return nil
	}
	v := a.b[:n]
	a.b = a.b[n:]
	return v
}

func (a *args) octet() byte {
	if v := a.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (a *args) uint16() uint16 {
	if v := a.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (a *args) uint32() uint32 {
	if v := a.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (a *args) uint64() uint64 {
	if v := a.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (a *args) short() string { return string(a.take(int(a.octet()))) }

// long reads a long string or, whole and undecoded, a table.
func (a *args) long() []byte { return a.take(int(a.uint32())) }

func (a *args) err(m method) error {
	if a.bad {
		return fmt.Errorf("arguments of method %d.%d are cut short", m>>16, m&0xffff)
	}
	return nil
}
