package publisher

import (
	"net"
	"sync"
	"time"
)

const (
	// coalesceMax bounds what is written and not yet given to the kernel. A Write
	// blocks beyond it.
	coalesceMax = 256 << 10
	// gatherMax is how much is gathered while the writer says that more follows.
	gatherMax = 32 << 10
)

// coalescingConn gathers small writes into large ones: the library writes to its
// connection once for every message, which costs 40 % of the daemon's time. A
// goroutine of its own, the flusher, writes what has gathered while it was
// writing before. So nothing waits for a timer, and nothing has to be flushed, unless
// the writer has said that it knows more to be written.
//
// Each write to the socket has a deadline. Without one, a broker that does not
// read makes the library hold its lock for ever, and even Close hangs.
type coalescingConn struct {
	net.Conn

	mu           sync.Mutex // guards all below
	changed      sync.Cond  // of mu: pending, gathering, err or closed changed
	writeTimeout time.Duration
	pending      []byte
	gathering    bool  // more follows at once
	err          error // of the flusher; every Write returns it from then on
	closed       bool
	ended        chan struct{} // the flusher has returned
}

func newCoalescingConn(c net.Conn, writeTimeout time.Duration) *coalescingConn {
	w := &coalescingConn{Conn: c, writeTimeout: writeTimeout, ended: make(chan struct{})}
	w.changed.L = &w.mu
	go w.flush()
	return w
}

// Write keeps a copy of p for the flusher.
func (w *coalescingConn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > 0 && len(w.pending)+len(p) > coalesceMax && w.err == nil && !w.closed {
		w.gathering = false // or the flusher would wait, too
		w.changed.Broadcast()
		w.changed.Wait()
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closed:
		return 0, net.ErrClosed
	}
	w.pending = append(w.pending, p...)
	if w.due() {
		w.changed.Broadcast()
	}
	return len(p), nil
}

// due tells whether it is time to write what is pending. The lock is held.
func (w *coalescingConn) due() bool {
	return len(w.pending) > 0 && (!w.gathering || len(w.pending) >= gatherMax)
}

// gather says whether more will be written at once, so that it pays to write it together
// with what is pending. Who has said so must say the opposite before waiting for anything.
func (w *coalescingConn) gather(more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gathering = more
	if w.due() {
		w.changed.Broadcast()
	}
}

// Close lets the flusher write what is pending, within closeTimeout, and closes
// the connection.
func (w *coalescingConn) Close() error {
	w.mu.Lock()
	w.closed = true
	w.writeTimeout = min(w.writeTimeout, closeTimeout)
	_ = w.SetWriteDeadline(time.Now().Add(w.writeTimeout)) // of a write that goes on
	w.changed.Broadcast()
	w.mu.Unlock()
	<-w.ended
	return w.Conn.Close()
}

// abort closes the connection at once; blocked reads and writes return.
func (w *coalescingConn) abort() {
	w.mu.Lock()
	w.closed = true
	if w.err == nil {
		w.err = net.ErrClosed
	}
	w.changed.Broadcast()
	w.mu.Unlock()
	_ = w.Conn.Close()
}

// flush is the flusher. It ends with the connection.
func (w *coalescingConn) flush() {
	defer close(w.ended)
	var writing []byte
	for {
		w.mu.Lock()
		for !w.due() && w.err == nil && !w.closed {
			w.changed.Wait()
		}
		if len(w.pending) == 0 || w.err != nil {
			w.mu.Unlock()
			return
		}
		writing, w.pending = w.pending, writing[:0]
		err := w.SetWriteDeadline(time.Now().Add(w.writeTimeout)) // under the lock: Close shortens it
		w.changed.Broadcast()
		w.mu.Unlock()

		if err == nil {
			_, err = w.Conn.Write(writing)
		}
		if err != nil {
			w.mu.Lock()
			if w.err == nil {
				w.err = err
			}
			w.changed.Broadcast()
			w.mu.Unlock()
			_ = w.Conn.Close() // the library's reader sees it, and ends the connection
			return
		}
		if cap(writing) > 2*coalesceMax {
			writing = nil
		}
	}
}
