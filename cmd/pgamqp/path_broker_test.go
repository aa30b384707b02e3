package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// ackingBroker takes everything and confirms it. It allocates nothing for a message, so
// that what is measured is the daemon's; internal/fakeamqp keeps each message for the
// test to look at.
type ackingBroker struct {
	listener net.Listener
	// ackEvery is how many messages one confirm is for. The first ones are confirmed one by
	// one, because the first message to an exchange goes alone.
	ackEvery int64
	// backlog is how many messages it lets gather before it confirms a quarter of them, as
	// one that is slower than the daemon and waits for its disk. The last message, which has
	// the number expected, ends that.
	backlog  int64
	expected atomic.Int64
	acked    atomic.Int64
	progress chan struct{} // capacity 1: acked has grown
}

const ackedAlone = 64

// startBroker starts a broker for one connection. It ends with the test.
func startBroker(tb testing.TB, ackEvery, backlog int) *ackingBroker {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	b := &ackingBroker{listener: listener, ackEvery: int64(ackEvery), backlog: int64(backlog), progress: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- b.serve() }()
	tb.Cleanup(func() {
		_ = listener.Close()
		if err := <-ended; err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
			tb.Errorf("broker: %v", err)
		}
	})
	return b
}

func (b *ackingBroker) serve() error {
	conn, err := b.listener.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReaderSize(conn, 64<<10)
	if _, err := in.Discard(len("AMQP") + 4); err != nil {
		return err
	}
	start := append([]byte{0, 9, 0, 0, 0, 0}, "\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US"...)
	if err := call(conn, 0, 10, 10, start); err != nil {
		return err
	}
	ack := make([]byte, 0, 32)
	var body uint64 // what is missing of it
	for tag := int64(0); ; {
		head, err := in.Peek(7 + 4)
		if err != nil {
			return err
		}
		kind, channel, size := head[0], binary.BigEndian.Uint16(head[1:]), int(binary.BigEndian.Uint32(head[3:]))
		class, method := binary.BigEndian.Uint16(head[7:]), binary.BigEndian.Uint16(head[9:])
		switch kind {
		case 1:
			err = answer(conn, channel, class, method)
		case 2:
			if head, err = in.Peek(7 + 12); err == nil {
				body = binary.BigEndian.Uint64(head[7+4:])
			}
		case 3:
			if body -= uint64(size); body == 0 {
				tag++
				err = b.confirm(conn, ack, channel, tag)
			}
		default:
			err = fmt.Errorf("frame of type %d", kind)
		}
		if err != nil {
			return err
		}
		if _, err := in.Discard(7 + size + 1); err != nil {
			return err
		}
	}
}

// confirm writes the confirms that are due when a message has come. room is for one.
func (b *ackingBroker) confirm(w io.Writer, room []byte, channel uint16, tag int64) error {
	acked := b.acked.Load()
	until, step := acked, b.ackEvery
	switch {
	case tag <= ackedAlone || tag == b.expected.Load():
		until, step = tag, tag-acked
	case tag-acked >= max(b.backlog, b.ackEvery):
		until += max(b.backlog/4, b.ackEvery)
	}
	for acked < until {
		acked += step
		if _, err := w.Write(appendAck(room, channel, acked)); err != nil {
			return err
		}
		b.acked.Store(acked)
		select {
		case b.progress <- struct{}{}:
		default:
		}
	}
	return nil
}

// answer gives the answer to a method, if it wants one.
func answer(w io.Writer, channel, class, method uint16) error {
	switch uint32(class)<<16 | uint32(method) {
	case 60<<16 | 40, 10<<16 | 31: // basic.publish, connection.tune-ok
		return nil
	case 10<<16 | 11: // connection.start-ok: tune, with frames of 128 KiB and no heartbeat
		return call(w, channel, 10, 30, []byte{0, 0, 0, 2, 0, 0, 0, 0})
	case 10<<16 | 40: // connection.open
		return call(w, channel, class, method+1, make([]byte, 1))
	case 20<<16 | 10: // channel.open
		return call(w, channel, class, method+1, make([]byte, 4))
	}
	return call(w, channel, class, method+1, nil)
}

// call writes a method.
func call(w io.Writer, channel, class, method uint16, args []byte) error {
	b := binary.BigEndian.AppendUint16([]byte{1}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(args)))
	b = binary.BigEndian.AppendUint16(b, class)
	b = binary.BigEndian.AppendUint16(b, method)
	_, err := w.Write(append(append(b, args...), 0xCE))
	return err
}

// appendAck adds a confirm of all messages up to tag.
func appendAck(b []byte, channel uint16, tag int64) []byte {
	b = binary.BigEndian.AppendUint16(append(b, 1), channel)
	b = binary.BigEndian.AppendUint32(b, 4+9)
	b = append(b, 0, 60, 0, 80)
	b = binary.BigEndian.AppendUint64(b, uint64(tag))
	return append(b, 1, 0xCE)
}
