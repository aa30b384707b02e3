package fakenet

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Gate is a net.Conn's reading side that can be shut: while it is, no byte is
// taken from the socket, so that the peer's writes block once the buffers of
// the two kernels are full. Its methods may be called from any goroutine, Read
// from one at a time.
type Gate struct {
	conn net.Conn

	mu     sync.Mutex // covers the fields below
	open   chan struct{}
	shut   bool
	broken bool // shut has no effect any more
}

// NewGate returns an open Gate.
func NewGate(conn net.Conn) *Gate {
	return &Gate{conn: conn, open: make(chan struct{})}
}

// Read reads from the connection once the gate is open.
func (g *Gate) Read(p []byte) (int, error) {
	for {
		g.Wait()
		n, err := g.conn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			continue // Shut used the deadline to call a waiting Read back
		}
		return n, err
	}
}

// Wait returns when the gate is open.
func (g *Gate) Wait() {
	g.mu.Lock()
	shut, open := g.shut && !g.broken, g.open
	g.mu.Unlock()
	if shut {
		<-open
	}
}

// Shut stops reading; a Read that waits for bytes waits for Open from then on.
func (g *Gate) Shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut && !g.broken {
		g.shut = true
		_ = g.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Open takes Shut back.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && !g.broken {
		g.shut = false
		_ = g.conn.SetReadDeadline(time.Time{})
		close(g.open)
		g.open = make(chan struct{})
	}
}

// Tear opens the gate for good; the caller closes the connection as well.
func (g *Gate) Tear() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && !g.broken {
		_ = g.conn.SetReadDeadline(time.Time{}) // else Read spins until the close
		close(g.open)
	}
	g.broken = true
}

// Reset closes with RST instead of FIN, as a host that has lost its state.
func Reset(tcp *net.TCPConn) {
	_ = tcp.SetLinger(0)
	_ = tcp.Close()
}
