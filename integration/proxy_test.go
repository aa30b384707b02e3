package integration

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands between the daemon and a server, and is what breaks: the server of all tests
// must not. The daemon reaches it at 127.0.0.1 and port().
type proxy struct {
	t     *testing.T
	bound int
	ended sync.WaitGroup

	mu       sync.Mutex // guards all below
	target   string
	listener net.Listener
	conns    map[net.Conn]bool
	flowing  chan struct{} // closed while bytes flow
	stranded map[net.Conn]bool
	latency  time.Duration // of each piece, on either way
	limited  bool          // limit counts
	limit    int           // bytes that still pass before the connection is cut that carries them
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{
		t: t, target: target, conns: make(map[net.Conn]bool), stranded: make(map[net.Conn]bool), flowing: make(chan struct{}),
		bound: closedPort(t), // which nobody else gets while connections are refused
	}
	close(p.flowing)
	p.accept()
	t.Cleanup(func() {
		p.thaw()
		p.refuse()
		p.ended.Wait()
	})
	return p
}

func (p *proxy) port() int { return p.bound }

// accept lets connections through, again after refuse.
func (p *proxy) accept() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.bound})
	if err != nil {
		p.t.Fatal(err)
	}
	p.listener = l
	p.ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.ended.Go(func() { p.serve(c) })
		}
	})
}

// refuse is a server that is gone: connections end, new ones are refused.
func (p *proxy) refuse() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.cut()
}

// cut ends all connections; new ones are let through.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// redirect makes another server answer at the address from now on.
func (p *proxy) redirect(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.cut()
}

// reset ends all connections with a RST, which throws away what is still under way.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		abort(c)
	}
}

// abort makes the end of a connection a RST.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only for one that is closed already
	}
	_ = c.Close()
}

// cutAfter cuts a connection once n more bytes have passed, in whichever direction and wherever in a
// frame that is. Others live on. A negative n takes that back.
func (p *proxy) cutAfter(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limited, p.limit = n >= 0, n
}

// delay makes the network slow; 0 makes it fast again.
func (p *proxy) delay(latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = latency
}

// pass says how many of n bytes may pass, and after which time.
func (p *proxy) pass(n int) (allowed int, after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed = n
	if p.limited {
		allowed = min(n, p.limit)
		p.limit -= allowed
		p.limited = allowed == n // what is cut off is cut off once
	}
	return allowed, p.latency
}

// freeze is a network that swallows everything: no byte gets through, no connection ends.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
		p.flowing = make(chan struct{})
	default:
	}
}

// thaw lets through what was held, and all that follows.
func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
	default:
		close(p.flowing)
	}
}

// strand is a peer that has vanished: what is sent on the present connections is gone, and nobody
// closes them. New ones are let through.
func (p *proxy) strand() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		p.stranded[c] = true
	}
}

func (p *proxy) isStranded(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stranded[c]
}

func (p *proxy) flow() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flowing
}

// serve connects a client to the target until either side ends.
func (p *proxy) serve(client net.Conn) {
	defer p.forget(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer p.forget(server)
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	refused := p.listener == nil
	p.mu.Unlock()
	if refused { // just now
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			p.copy(way[1], way[0])    // until either side ends
			if p.isStranded(way[0]) { // the other side hears nothing of that
				return
			}
			_, _ = client.Close(), server.Close()
		})
	}
	both.Wait()
}

func (p *proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.stranded, c)
	p.mu.Unlock()
}

func (p *proxy) copy(to io.Writer, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		<-p.flow()
		if n > 0 && !p.isStranded(from) {
			allowed, after := p.pass(n)
			if after > 0 {
				<-time.After(after)
			}
			if _, err := to.Write(buffer[:allowed]); err != nil || allowed < n {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
