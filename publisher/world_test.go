package publisher

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// world is a Publisher between a test that plays the stream, and a broker: a scripted
// one, unless the test is a scenario (see stage).
type world struct {
	*fakeamqp.Server
	t         *testing.T
	publisher *Publisher
	metrics   *prometheus.Registry
	stop      context.CancelFunc
	ended     chan struct{} // Run has returned
	held      atomic.Int64  // what Hold was told

	mu       sync.Mutex // guards all below
	brokers  []Broker
	broken   int      // how often the definitions cannot be read
	asked    []uint32 // the transactions whose changes were asked for
	sent     int
	finished map[int]int // calls of done, by message
	letters  []DeadLetter
	full     int // how often the dead letter table refuses
	refused  int // how often it has
}

// errTableFull is an error of the dead letter table.
type errTableFull struct{}

func (errTableFull) Error() string { return "disk full" }

// newWorld starts a broker and a Publisher; change may adapt the configuration.
func newWorld(t *testing.T, c fakeamqp.Config, change func(*Config)) *world {
	t.Helper()
	s := fakeamqp.Start(t, c)
	w := newWorldAt(t, hostOf(s), change)
	w.Server = s
	t.Cleanup(func() {
		w.stop()
		s.DropAll() // a test that has failed may leave anything behind
	})
	return w
}

// newWarmWorld is a world whose broker does what the test says, and whose exchange x is
// known to work.
func newWarmWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.warm("x")
	return w
}

// newWorldAt starts a Publisher whose broker 1 is at some host. There is no Server.
func newWorldAt(t *testing.T, h Host, change func(*Config)) *world {
	t.Helper()
	w := &world{t: t, finished: map[int]int{}, ended: make(chan struct{})}
	w.brokers = []Broker{{ID: 1, Hosts: []Host{h}}}
	cfg := Config{
		WindowMessages: 100, WindowBytes: 1 << 20, NackRetry: limit, ConnectionName: "test",
		Brokers: w.definitions, DeadLetter: w.deadLetter,
		Hold: func(more int) { w.held.Add(int64(more)) },
	}
	if change != nil {
		change(&cfg)
	}
	w.metrics = prometheus.NewRegistry()
	received := metrics.NewReplication(w.metrics, "pgamqp")
	w.publisher = New(cfg, quiet(), Metrics{
		Brokers: metrics.NewPublisher(w.metrics), Received: received.Received, Skipped: received.Skipped,
	})
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() {
		defer close(w.ended)
		if err := w.publisher.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, "end of Run", w.ended)
		if n := w.held.Load(); n != 0 {
			t.Errorf("%d bytes are said to be held when nothing runs any more", n)
		}
	})
	return w
}

// hostOf is how a fake broker is found.
func hostOf(s *fakeamqp.Server) Host {
	host, port, _ := net.SplitHostPort(s.Addr())
	n, _ := strconv.Atoi(port)
	return Host{Host: host, Port: n, VHost: "/", Username: "guest", Password: "guest"}
}

// definitions is the table amqp.broker.
func (w *world) definitions(_ context.Context, xid uint32) ([]Broker, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, xid)
	if w.broken > 0 {
		w.broken--
		return nil, errTableFull{}
	}
	return slices.Clone(w.brokers), nil
}

// define changes the table; tell has the stream say so.
func (w *world) define(tell bool, brokers ...Broker) {
	w.t.Helper()
	w.mu.Lock()
	w.brokers = brokers
	w.mu.Unlock()
	if tell {
		w.publish(envelope(decoder.KindBrokersChanged, 0, nil, ""))
	}
}

// deadLetter is the table amqp.dead_letter.
func (w *world) deadLetter(_ context.Context, d DeadLetter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full > 0 {
		w.full--
		w.refused++
		return errTableFull{}
	}
	if n := w.finished[numberOf(d.Message)]; n > 0 {
		w.t.Errorf("%s was done before its dead letter was stored", d.Origin)
	}
	w.letters = append(w.letters, d)
	return nil
}

// numberOf is the number of a message made by message.
func numberOf(m decoder.Message) int { return int(m.LSN-0x1000) / 0x10 }

// numbered is the message id of the n-th message, if it has none of its own.
func numbered(n int) string { return message(n, nil).ID }

// publish hands over messages with these contents, and gives the first's number.
func (w *world) publish(contents ...[]byte) int {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	first := w.next()
	for i, content := range contents {
		n := first
		if i > 0 {
			n = w.next()
		}
		if err := w.publisher.Publish(ctx, message(n, content), w.done(n)); err != nil {
			w.t.Fatalf("publish %d: %v", n, err)
		}
	}
	return first
}

func (w *world) next() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	return w.sent - 1
}

// done is the done func of a message.
func (w *world) done(n int) func() {
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.finished[n]++
	}
}

// to publishes texts to an exchange.
func (w *world) to(exchange string, texts ...string) int {
	w.t.Helper()
	contents := make([][]byte, len(texts))
	for i, text := range texts {
		contents[i] = publication(exchange, text)
	}
	return w.publish(contents...)
}

// publication is the content of a message whose routing key and body are a text.
func publication(exchange, text string) []byte {
	return envelope(decoder.KindPublish, 1, fields{'x': exchange, 'k': text}, text)
}

// isDone tells whether a message is done; twice is a mistake.
func (w *world) isDone(n int) bool {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finished[n] > 1 {
		w.t.Errorf("message %d was done %d times", n, w.finished[n])
	}
	return w.finished[n] > 0
}

// awaitDone waits until messages are done.
func (w *world) awaitDone(numbers ...int) {
	w.t.Helper()
	for _, n := range numbers {
		until(w.t, "done: "+strconv.Itoa(n), func() bool { return w.isDone(n) })
	}
}

// awaitAll waits until every message is done.
func (w *world) awaitAll() {
	w.t.Helper()
	for n := range w.sent {
		w.awaitDone(n)
	}
}

// dead returns the dead letters so far.
func (w *world) dead() []DeadLetter {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.letters)
}

// noLetters fails if there are dead letters.
func (w *world) noLetters() {
	w.t.Helper()
	for _, d := range w.dead() {
		w.t.Errorf("dead letter %s: %s %s", d.Origin, d.Reason, d.ReplyText)
	}
}

// arrival waits for the next publish.
func (w *world) arrival() *fakeamqp.Publish {
	w.t.Helper()
	return fakeamqp.Await[*fakeamqp.Publish](w.t, w.Server)
}

// arrivals waits for publishes with these bodies, in this order.
func (w *world) arrivals(texts ...string) []*fakeamqp.Publish {
	w.t.Helper()
	var out []*fakeamqp.Publish
	for i, text := range texts {
		p := w.arrival()
		if string(p.Body) != text {
			w.t.Fatalf("arrival %d is %q, want %q", i, p.Body, text)
		}
		out = append(out, p)
	}
	return out
}

// inFlight publishes texts to exchange x and waits until the broker has got them. It gives
// the number of the first one.
func (w *world) inFlight(texts ...string) (first int, ps []*fakeamqp.Publish) {
	w.t.Helper()
	return w.to("x", texts...), w.arrivals(texts...)
}

// connected waits for a connection to the broker.
func (w *world) connected() *fakeamqp.Conn {
	w.t.Helper()
	return fakeamqp.Await[*fakeamqp.Conn](w.t, w.Server)
}

// nothingArrived fails if a publish has arrived that nobody has taken.
func (w *world) nothingArrived() {
	w.t.Helper()
	for _, e := range w.Pending() {
		if p, ok := e.(*fakeamqp.Publish); ok {
			w.t.Errorf("unexpected: %v", p)
		}
	}
}

// warm makes exchanges known to work, so that later messages to them are sent
// without waiting for each other. Nothing is held afterwards.
func (w *world) warm(exchanges ...string) {
	w.t.Helper()
	for _, x := range exchanges {
		n := w.to(x, "warm")
		w.arrivals("warm")[0].Ack()
		w.awaitDone(n)
	}
	w.awaitEmpty(1)
}

// awaitEmpty waits until the lane of a broker holds nothing. A message is done before it
// leaves the window.
func (w *world) awaitEmpty(broker int32) {
	w.t.Helper()
	until(w.t, "an empty window", func() bool { return w.statusOf(broker).Held == 0 })
}

// status is that of the lane of broker 1.
func (w *world) status() LaneStatus { return w.statusOf(1) }

// statusOf is that of the lane of a broker, empty if there is none.
func (w *world) statusOf(broker int32) LaneStatus {
	for _, s := range w.publisher.Status() {
		if s.Broker == broker {
			return s
		}
	}
	return LaneStatus{}
}

// counted returns the value of a counter or gauge, of its series that has labels
// of these values.
func (w *world) counted(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// list makes texts with numbers: list("a", 3) is a0, a1, a2.
func list(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = prefix + strconv.Itoa(i)
	}
	return out
}
