package fakeamqp

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate is a net.Conn's reading side that can be shut: while it is, no byte is
// taken from the socket, so that the peer's writes block once the buffers of
// the two kernels are full.
type gate struct {
	conn net.Conn

	mu     sync.Mutex // covers the fields below
	open   chan struct{}
	shut   bool
	broken bool // shut has no effect any more
}

func newGate(conn net.Conn) *gate {
	return &gate{conn: conn, open: make(chan struct{})}
}

func (g *gate) Read(p []byte) (int, error) {
	for {
		g.wait()
		n, err := g.conn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue // close used the deadline to call a waiting Read back
		}
		return n, err
	}
}

// wait returns when the gate is open.
func (g *gate) wait() {
	g.mu.Lock()
	shut, open := g.shut && !g.broken, g.open
	g.mu.Unlock()
	if shut {
		<-open
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut && !g.broken {
		g.shut = true
		_ = g.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && !g.broken {
		g.shut = false
		_ = g.conn.SetReadDeadline(time.Time{})
		close(g.open)
		g.open = make(chan struct{})
	}
}

// tear opens the gate for good; the caller closes the connection as well.
func (g *gate) tear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && !g.broken {
		_ = g.conn.SetReadDeadline(time.Time{}) // else Read spins until the close
		close(g.open)
	}
	g.broken = true
}
