package publisher

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// counting counts the writes that reach a connection.
type counting struct {
	net.Conn
	writes atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// coalesced is a coalescingConn over a pipe, inside a bubble, and its peer.
func coalesced(t *testing.T) (*coalescingConn, *counting, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &counting{Conn: ours}
	w := newCoalescingConn(c, writeTimeout)
	t.Cleanup(func() {
		w.abort()
		<-w.ended
		_ = theirs.Close()
	})
	return w, c, theirs
}

func mustWrite(t *testing.T, w io.Writer, p []byte) {
	t.Helper()
	if n, err := w.Write(p); err != nil || n != len(p) {
		t.Fatalf("wrote %d of %d: %v", n, len(p), err)
	}
}

func TestWritesArriveInOrderAndWhole(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		chunks := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 2000), 1, 50).Draw(r, "chunks")
		reads := rapid.SliceOfN(rapid.IntRange(1, 5000), 1, 10).Draw(r, "reads")
		var got, want []byte
		synctest.Test(t, func(t *testing.T) {
			w, _, peer := coalesced(t)
			read := make(chan []byte)
			go func() {
				var all []byte
				for i := 0; ; i++ {
					b := make([]byte, reads[i%len(reads)])
					n, err := peer.Read(b)
					all = append(all, b[:n]...)
					if err != nil {
						read <- all
						return
					}
				}
			}()
			for _, c := range chunks {
				want = append(want, c...)
				mustWrite(t, w, c)
			}
			if err := w.Close(); err != nil { // flushes
				t.Error(err)
			}
			got = <-read
		})
		if !bytes.Equal(got, want) {
			r.Fatalf("read %d bytes, want %d", len(got), len(want))
		}
	})
}

func TestWhatGathersDuringAWriteIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c, peer := coalesced(t)
		mustWrite(t, w, []byte("first"))
		synctest.Wait() // it is being written, nobody reads
		for range 100 {
			mustWrite(t, w, []byte("more"))
		}
		if _, err := io.ReadFull(peer, make([]byte, 5+400)); err != nil {
			t.Fatal(err)
		}
		if n := c.writes.Load(); n != 2 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestWhatIsFollowedByMoreWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c, peer := coalesced(t)
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		expect := func(writes int64) {
			t.Helper()
			synctest.Wait()
			if n := c.writes.Load(); n != writes {
				t.Errorf("%d writes, want %d", n, writes)
			}
		}
		w.gather(true)
		mustWrite(t, w, []byte("first"))
		mustWrite(t, w, []byte("second"))
		expect(0)
		w.gather(false)
		expect(1)
		mustWrite(t, w, []byte("alone"))
		expect(2)
		w.gather(true)
		mustWrite(t, w, make([]byte, gatherMax))
		expect(3) // enough
		mustWrite(t, w, []byte("a little"))
		expect(3)
		mustWrite(t, w, make([]byte, coalesceMax)) // does not fit in beside it
		expect(5)                                  // and is itself not held back
	})
}

func TestWhatHasGatheredIsWrittenBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, peer := coalesced(t)
		w.gather(true)
		mustWrite(t, w, []byte("last words"))
		go func() { _ = w.Close() }()
		if got, err := io.ReadAll(peer); string(got) != "last words" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestWriterWaitsWhenTooMuchHasGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, peer := coalesced(t)
		mustWrite(t, w, make([]byte, 3*coalesceMax)) // any size is taken when nothing waits
		synctest.Wait()
		mustWrite(t, w, make([]byte, coalesceMax-1))
		mustWrite(t, w, []byte("x")) // up to the limit
		wrote := make(chan struct{})
		go func() {
			mustWrite(t, w, []byte("one too many"))
			close(wrote)
		}()
		synctest.Wait()
		select {
		case <-wrote:
			t.Error("nothing bounds what waits to be written")
		default:
		}
		go func() { _, _ = io.Copy(io.Discard, peer) }()
		<-wrote
	})
}

// Without the deadline a frozen broker would block the library for ever.
func TestPeerThatDoesNotReadIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := coalesced(t)
		began := time.Now()
		mustWrite(t, w, []byte("x"))
		if _, err := w.Read(make([]byte, 1)); err == nil || time.Since(began) != writeTimeout {
			t.Errorf("the reader saw %v after %s", err, time.Since(began))
		}
		for range 2 {
			if _, err := w.Write([]byte("y")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write behind the failure: %v", err)
			}
		}
		_ = w.Close() // returns
	})
}

func TestFailedWriteIsToldToAllLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, peer := coalesced(t)
		_ = peer.Close()
		mustWrite(t, w, []byte("x")) // goes nowhere, and cannot know it yet
		<-w.ended
		for range 3 {
			if n, err := w.Write([]byte("y")); err == nil || n != 0 {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
	})
}

func TestCloseGivesUpOnAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := coalesced(t)
		mustWrite(t, w, make([]byte, 1000))
		synctest.Wait() // the write is under way, with the long deadline
		mustWrite(t, w, make([]byte, 1000))
		began := time.Now()
		_ = w.Close()
		if took := time.Since(began); took > 2*closeTimeout {
			t.Errorf("closed after %s", took)
		}
		if _, err := w.Write([]byte("y")); err == nil {
			t.Error("wrote to a closed connection")
		}
	})
}

func TestAbortEndsBlockedWritesAndReadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, _ := coalesced(t)
		mustWrite(t, w, make([]byte, coalesceMax))
		synctest.Wait()
		mustWrite(t, w, make([]byte, coalesceMax))
		failed := make(chan error, 2)
		go func() { _, err := w.Write([]byte("blocked")); failed <- err }()
		go func() { _, err := w.Read(make([]byte, 1)); failed <- err }()
		synctest.Wait()
		began := time.Now()
		w.abort()
		w.abort() // harmless
		for range 2 {
			if err := <-failed; err == nil {
				t.Error("no error")
			}
		}
		<-w.ended
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		if _, err := w.Write(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write behind the abort: %v", err)
		}
	})
}

// The library holds its lock while it writes, so that without a deadline even its
// Close would hang.
func TestFrozenBrokerDoesNotFreezeTheLibrary(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{ReadBuffer: 4096})
	var wire *coalescingConn
	conn, err := amqp.DialConfig(s.URL(), amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		socket, err := net.Dial(network, addr)
		wire = newCoalescingConn(socket, writeTimeout)
		return wire, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	fakeamqp.Await[*fakeamqp.Conn](t, s).Freeze()
	wire.mu.Lock()
	wire.writeTimeout = 300 * time.Millisecond // not before: what is written until now must not fail
	wire.mu.Unlock()
	body := make([]byte, 1<<20)
	for range 64 { // more than the kernel can hold
		if err = ch.Publish("x", "", false, false, amqp.Publishing{Body: body}); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("64 MiB went into a frozen broker")
	}
	_ = receive(t, "the connection's end", closed) // whatever the reason
	ended := make(chan error, 1)
	go func() { ended <- conn.Close() }()
	_ = receive(t, "close", ended) // it is the end that counts
}
