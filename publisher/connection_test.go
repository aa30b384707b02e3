package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestWhatWasInFlightIsSentAgainOnANewConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*fakeamqp.Conn){
		"dropped": (*fakeamqp.Conn).Drop,
		"reset":   (*fakeamqp.Conn).Reset,
		"closed":  func(c *fakeamqp.Conn) { c.Close(320, "CONNECTION_FORCED - shutdown") },
		"half a frame": func(c *fakeamqp.Conn) {
			c.HalfFrame()
			c.Drop()
		},
		"nonsense": func(c *fakeamqp.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWarmWorld(t)
			first, ps := w.inFlight("a", "b", "c", "d")
			ps[0].Ack()
			w.awaitDone(first)
			end(ps[0].Conn)
			for i, text := range []string{"b", "c", "d"} {
				p := w.arrivals(text)[0]
				if p.Conn == ps[0].Conn || p.Properties.MessageID != ps[i+1].Properties.MessageID {
					t.Errorf("again: %v", p)
				}
				p.Ack()
			}
			w.awaitAll()
			w.noLetters()
			w.nothingArrived()
			// The library resolves what was in flight as if it were nacked.
			if n := w.counted("pgamqp_nacked_messages_total", "x"); n != 0 {
				t.Errorf("%v nacks counted", n)
			}
			if n := w.counted("pgamqp_publish_retries_total", "connection_lost"); n != 3 {
				t.Errorf("%v retries counted", n)
			}
		})
	}
}

// A broker that falls silent, in the middle of a frame or between two, is left after
// three heartbeats.
func TestSilentBrokerIsLeft(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]func(*fakeamqp.Conn){
		"between two frames": (*fakeamqp.Conn).Silence,
		"in half a frame":    (*fakeamqp.Conn).HalfFrame,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex // guards all below
			var silent *fakeamqp.Conn
			var again []string
			// Any connection may end early, if this machine stands still for longer than a heartbeat.
			w := newWorld(t, fakeamqp.Config{Heartbeat: time.Second, Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
				mu.Lock()
				defer mu.Unlock()
				text := string(p.Body)
				switch {
				case silent == nil && text == "a":
					silence(p.Conn)
					silent = p.Conn
				case silent != nil && p.Conn != silent:
					again = append(again, text)
				}
				return fakeamqp.Ack // never written by the silent one
			}}, nil)
			w.awaitDone(w.to("x", "warm"))
			w.to("x", "a", "b")
			w.awaitAll()
			w.noLetters()
			mu.Lock()
			defer mu.Unlock()
			if order, _ := firsts(again); !slices.Equal(order, []string{"a", "b"}) {
				t.Errorf("came again: %v", again)
			}
		})
	}
}

func TestHostsAreTriedInTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
	down, silent := fakeamqp.Start(t, fakeamqp.Config{}), fakeamqp.Start(t, fakeamqp.Config{
		Login: func(string, string) error { return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED - no"} },
	})
	down.Admit(fakeamqp.Refuse)
	w.define(true, Broker{ID: 2, Hosts: []Host{hostOf(down), hostOf(silent), hostOf(w.Server)}})
	n := w.publish(publicationFor(2, "x", "a"))
	w.awaitDone(n)
	for label, want := range map[string]float64{"ok": 1, "unreachable": 1, "denied": 1} {
		if got := w.counted("pgamqp_broker_connects_total", "2", label); got != want {
			t.Errorf("%s: %v, want %v", label, got, want)
		}
	}
	if w.counted("pgamqp_broker_connected", w.Addr(), "2") != 1 || w.counted("pgamqp_broker_connected", down.Addr(), "2") != 0 {
		t.Error("the connected host is not the one that is shown")
	}
}

func TestO06DialTellsWhoAndWhereButNoPassword(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{
		Login: func(_, password string) error {
			if password == "wrong-secret" {
				return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED"}
			}
			return nil
		},
		Open: func(vhost string) error {
			if vhost == "gone" {
				return &fakeamqp.Refusal{Code: 530, Text: "NOT_ALLOWED - vhost gone not found"}
			}
			return nil
		},
	})
	away := fakeamqp.Start(t, fakeamqp.Config{})
	away.Admit(fakeamqp.Refuse)
	for name, c := range map[string]struct {
		change func(*Host)
		denied bool
	}{
		"password": {func(h *Host) { h.Password = "wrong-secret" }, true},
		"vhost":    {func(h *Host) { h.VHost = "gone" }, true},
		"away":     {func(h *Host) { *h = hostOf(away); h.Password = "wrong-secret" }, false},
	} {
		h := hostOf(s)
		c.change(&h)
		conn, err := dial(t.Context(), h, "test", func(bool, string) {})
		if err == nil {
			conn.close()
			t.Errorf("%s: connected", name)
			continue
		}
		if Denied(err) != c.denied || !strings.Contains(err.Error(), h.Address()) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: denied %t, %v", name, Denied(err), err)
		}
	}
	if text := fmt.Sprintf("%v %s %+v", hostOf(s), hostOf(s), slog.Any("h", hostOf(s)).Value.Resolve()); strings.Contains(text, "guest:") || strings.Count(text, "guest") != 3 {
		t.Errorf("host as text: %s", text)
	}
}

// The library knows no context; a broker that hangs must not hold up a stop.
func TestDialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{})
	s.Admit(fakeamqp.Ignore)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := dial(ctx, hostOf(s), "test", func(bool, string) {})
		failed <- err
	}()
	fakeamqp.Await[*fakeamqp.NotServed](t, s)
	cancel()
	if err := receive(t, "dial", failed); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAlarmPausesTheLaneAndKeepsTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	conn := w.connected()
	w.warm("x")
	conn.Block("low on memory")
	until(t, "the alarm to be seen", func() bool { return !w.status().Down.IsZero() })
	if s := w.status(); s.Err == nil || !strings.Contains(s.Err.Error(), "low on memory") || w.counted("pgamqp_broker_blocked", "1") != 1 {
		t.Errorf("status %+v", s)
	}
	n := w.to("x", "a", "b")
	if s := w.status(); s.Held != 2 {
		t.Errorf("held %d", s.Held)
	}
	w.nothingArrived()
	conn.Unblock()
	for _, p := range w.arrivals("a", "b") {
		if p.Conn != conn {
			t.Errorf("on another connection: %v", p)
		}
		p.Ack()
	}
	w.awaitDone(n, n+1)
	until(t, "all is well", func() bool {
		s := w.status()
		return s.Down.IsZero() && s.Err == nil && s.Held == 0 && w.counted("pgamqp_broker_blocked", "1") == 0
	})
}

// A confirm that came before the connection was lost counts, also one that waited
// for its turn behind others.
func TestConfirmsBehindTheFirstSurviveTheConnection(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "b", "c")
	ps[1].Ack()
	ps[2].Conn.Close(320, "CONNECTION_FORCED") // orderly: what was sent before is read
	w.awaitDone(first + 1)
	for _, text := range []string{"a", "c"} {
		w.arrivals(text)[0].Ack()
	}
	w.awaitAll()
}

// What was sent before the alarm may still be confirmed in it.
func TestConfirmsCountDuringAnAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	conn := w.connected()
	w.warm("x")
	n := w.to("x", "a")
	p := w.arrivals("a")[0]
	conn.Block("disk")
	until(t, "the alarm to be seen", func() bool { return !w.status().Down.IsZero() })
	p.Ack()
	w.awaitDone(n)
}

// A broker that neither reads nor answers must not hold up a stop.
func TestStopWithAFrozenBrokerEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{ReadBuffer: 4096}, func(c *Config) { c.WindowBytes = 1 << 30 })
	conn := w.connected()
	w.warm("x")
	conn.Freeze()
	body := strings.Repeat("x", 1<<20)
	for range 32 { // more than the kernel can hold
		w.publish(envelope(decoder.KindPublish, 1, fields{'x': "x"}, body))
	}
	w.stop()
	receive(t, "end of Run", w.ended) // without a way out it waits for writeTimeout, which is longer
	for n := 1; n < w.sent; n++ {
		if w.isDone(n) {
			t.Errorf("message %d is done", n)
		}
	}
}

// The closer's way out: a close that gets no answer ends with the socket. Each heartbeat
// makes the library wait on.
func TestCloseOfAFrozenConnectionEnds(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{Heartbeat: time.Second})
	c, err := dial(t.Context(), hostOf(s), "test", func(bool, string) {})
	if err != nil {
		t.Fatal(err)
	}
	fakeamqp.Await[*fakeamqp.Conn](t, s).Freeze()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		c.close()
	}()
	receive(t, "close", closed)
}

func TestO09WindowBoundsWhatIsAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.WindowMessages = 3 })
	w.warm("x")
	_, ps := w.inFlight("a", "b", "c")
	accepted := make(chan error, 1)
	n := w.next()
	go func() {
		accepted <- w.publisher.Publish(context.Background(), message(n, publication("x", "d")), w.done(n))
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	select {
	case err := <-accepted:
		t.Fatalf("accepted a fourth message: %v", err)
	default:
	}
	ps[0].Ack()
	if err := receive(t, "the fourth message", accepted); err != nil {
		t.Error(err)
	}
	w.arrivals("d")[0].AckMultiple()
	w.awaitAll()
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.WindowMessages = 1 })
	w.to("x", "a")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errTableFull{})
	defer cancel()
	n := w.next()
	if err := w.publisher.Publish(ctx, message(n, publication("x", "b")), w.done(n)); !errors.Is(err, errTableFull{}) {
		t.Errorf("got %v", err)
	}
	w.mu.Lock()
	w.full = 1 << 30
	w.mu.Unlock()
	if err := w.publisher.Publish(ctx, message(n, []byte("junk")), w.done(n)); !errors.Is(err, errTableFull{}) {
		t.Errorf("got %v", err)
	}
	if w.isDone(n) {
		t.Error("done after an error")
	}
}

func TestRefusalsAreToldFromOtherEnds(t *testing.T) {
	for _, c := range []struct {
		err  *amqp.Error
		want bool
	}{
		{nil, false},
		{&amqp.Error{Code: 404, Server: true}, true},
		{&amqp.Error{Code: 541, Server: true}, true},
		{&amqp.Error{Code: 320, Server: true}, false},
		{&amqp.Error{Code: 200, Server: true}, false},
		{&amqp.Error{Code: 501, Server: false}, false}, // the library's own word for a broken connection
	} {
		if got := isRefusal(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}

// publicationFor is the content of a message for another broker than the usual one.
func publicationFor(broker int32, exchange, text string) []byte {
	return envelope(decoder.KindPublish, broker, fields{'x': exchange, 'k': text}, text)
}

// The library resolves confirms by number, so their order means nothing; ours does.
func TestAcksInReverseResolveInOrder(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	texts := list("m", 20)
	first, ps := w.inFlight(texts...)
	for i := len(ps) - 1; i > 0; i-- {
		ps[i].Ack()
	}
	w.nothingArrivesSoon()
	for i := range ps {
		if w.isDone(first + i) {
			t.Errorf("message %d is done before the first", i)
		}
	}
	ps[0].Ack()
	w.awaitAll()
	w.noLetters()
}

// The library allows a channel one user. With -race, a second would be seen; and each
// lane has a connection and a channel of its own.
func TestR37EachChannelHasOneUser(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	channels := map[string]map[*fakeamqp.Channel]bool{}
	w := newWorld(t, fakeamqp.Config{Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if channels[p.Exchange] == nil {
			channels[p.Exchange] = map[*fakeamqp.Channel]bool{}
		}
		channels[p.Exchange][p.Channel] = true
		return fakeamqp.Ack
	}}, nil)
	w.define(true, brokerAt(1, w.Server), brokerAt(2, w.Server), brokerAt(3, w.Server))
	for i := range 300 {
		broker := int32(i%3 + 1)
		w.publish(publicationFor(broker, fmt.Sprint(broker), "m"))
	}
	w.awaitAll()
	mu.Lock()
	defer mu.Unlock()
	connections := map[*fakeamqp.Conn]bool{}
	for broker, of := range channels {
		if len(of) != 1 {
			t.Errorf("broker %s: %d channels", broker, len(of))
		}
		for ch := range of {
			connections[ch.Conn] = true
		}
	}
	if len(connections) != 3 {
		t.Errorf("%d connections for 3 brokers", len(connections))
	}
}

// A reconnect leaves nothing behind: neither goroutines nor confirms that wait.
func TestO10HundredReconnectsLeakNothing(t *testing.T) {
	w := newWorld(t, fakeamqp.Config{}, nil)
	var hosts []Host // the next one is tried at once, without backoff
	for range 120 {
		hosts = append(hosts, hostOf(w.Server))
	}
	w.define(true, Broker{ID: 1, Hosts: hosts})
	w.warm("x")
	before := 0
	for i := range 105 {
		_, ps := w.inFlight("a", "b")
		ps[0].Conn.Drop()
		for _, text := range []string{"a", "b"} {
			w.arrivals(text)[0].Ack()
		}
		w.awaitAll()
		if i == 4 {
			before = runtime.NumGoroutine()
		}
	}
	until(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= before+2 })
}
