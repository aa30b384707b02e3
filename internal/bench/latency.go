package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// Columns of latencies, in milliseconds.
const (
	colP50, colP99, colMax = "p50_ms", "p99_ms", "max_ms"
	colAchieved            = "achieved_per_second"
)

func latencyColumns() []Column {
	return []Column{
		{Key: colP50, Title: "p50 ms", Digits: 2},
		{Key: colP99, Title: "p99 ms", Digits: 2},
		{Key: colMax, Title: "max ms", Digits: 1},
		{Key: colAchieved, Title: "messages/s"},
		{Key: colClient, Title: "client µs"},
		{Key: colMemory, Title: "peak MiB", Digits: 1},
	}
}

// warmUp is left out of what is measured: connections and caches are new.
const warmUp = time.Second

// flight is messages at a fixed rate, whatever becomes of those before: when each was sent
// and when it came, in nanoseconds since began, 0 while unknown.
type flight struct {
	began      time.Time
	interval   time.Duration
	sent, came []atomic.Int64
	body       int
}

func newFlight(rate int, duration time.Duration, body int) *flight {
	n := int(float64(rate) * (warmUp + duration).Seconds())
	return &flight{interval: time.Second / time.Duration(rate), sent: make([]atomic.Int64, n), came: make([]atomic.Int64, n), body: body}
}

// content is the body of message n, which says which it is.
func (f *flight) content(n int) string {
	id := strconv.Itoa(n) + " "
	return id + strings.Repeat("x", max(0, f.body-len(id)))
}

// send sends each message at its time, by so many senders. A message counts as sent when send
// has returned.
func (f *flight) send(ctx context.Context, senders int, connect func(context.Context, func(send func(body string) error) error) error) error {
	f.began = time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range senders {
		g.Go(func() error {
			return connect(ctx, func(send func(string) error) error {
				for {
					n := int(next.Add(1)) - 1
					if n >= len(f.sent) {
						return nil
					}
					select {
					case <-time.After(time.Until(f.began.Add(time.Duration(n) * f.interval))):
					case <-ctx.Done():
						return context.Cause(ctx)
					}
					if err := send(f.content(n)); err != nil {
						return err
					}
					f.sent[n].Store(max(1, int64(time.Since(f.began))))
				}
			})
		})
	}
	return g.Wait()
}

// receive notes what comes, and acknowledges it if that is wanted, until all is there.
func (f *flight) receive(ctx context.Context, deliveries <-chan amqp.Delivery, acknowledge bool) error {
	for left := len(f.came); left > 0; {
		select {
		case d, ok := <-deliveries:
			at := int64(time.Since(f.began))
			if !ok {
				return errors.New("the broker has closed the consumer's connection")
			}
			if acknowledge {
				if err := d.Ack(false); err != nil {
					return err
				}
			}
			id, _, _ := strings.Cut(string(d.Body[:min(len(d.Body), 20)]), " ")
			n, err := strconv.Atoi(id)
			if err != nil || n >= len(f.came) {
				return fmt.Errorf("message %q is none of this run", id)
			}
			if f.came[n].CompareAndSwap(0, max(1, at)) {
				left--
			}
		case <-ctx.Done():
			return fmt.Errorf("%d messages have not come: %w", left, context.Cause(ctx))
		}
	}
	return nil
}

// sample says how long it took from sent to came. What came before its commit was answered took
// nothing.
func (f *flight) sample() Sample {
	first := int(warmUp / f.interval)
	var took []float64
	for n := first; n < len(f.sent); n++ {
		took = append(took, max(0, time.Duration(f.came[n].Load()-f.sent[n].Load()).Seconds()*1e3))
	}
	slices.Sort(took)
	at := func(q float64) float64 { return took[min(len(took)-1, int(q*float64(len(took))))] }
	span := time.Duration(f.sent[len(f.sent)-1].Load() - f.sent[first].Load())
	return Sample{colP50: at(0.5), colP99: at(0.99), colMax: took[len(took)-1], colAchieved: float64(len(took)-1) / span.Seconds()}
}

// arrivalLimit is how long the last message may take.
const arrivalLimit = time.Minute

// fly sends and receives a flight.
func (w *world) fly(ctx context.Context, f *flight, to destination, send func(context.Context) error) error {
	return w.withBroker(func(ch *amqp.Channel) error {
		deliveries, err := to.consume(ch)
		if err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		sent := make(chan struct{})
		g.Go(func() error {
			defer close(sent)
			return send(ctx)
		})
		g.Go(func() error {
			limited, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			go func() { // ends the wait for what does not come
				select {
				case <-sent:
					time.AfterFunc(arrivalLimit, func() { cancel(fmt.Errorf("nothing more within %s", arrivalLimit)) })
				case <-limited.Done():
				}
			}()
			return f.receive(limited, deliveries, to.isStream())
		})
		return g.Wait()
	})
}

// latency is from the moment at which a COMMIT is answered to the moment at which a consumer
// has the message.
func (w *world) latency(ctx context.Context, rate int, to destination) (_ Sample, err error) {
	slot := w.newName("run")
	if _, err := w.db.Exec(ctx, `select pg_create_logical_replication_slot($1, 'pgoutput')`, slot); err != nil {
		return nil, err
	}
	if err := w.reset(to); err != nil {
		return nil, err
	}
	w.settle(ctx)
	d, err := w.daemon(ctx, w.options.Program, w.databaseURL, slot)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, d.stop(context.WithoutCancel(ctx)), w.dropSlot(context.WithoutCancel(ctx), slot))
	}()
	f := newFlight(rate, w.options.Time, w.options.Body)
	used := startMeter(d.pid())
	senders := 4
	if rate > 2000 {
		senders = 16
	}
	exchange, key := to.exchange(0)
	err = w.fly(ctx, f, to, func(ctx context.Context) error {
		return f.send(ctx, senders, func(ctx context.Context, use func(func(string) error) error) error {
			return inDatabase(ctx, w.databaseURL, func(conn *pgx.Conn) error {
				return use(func(body string) error {
					_, err := conn.Exec(ctx, `select amqp.publish(1, $1, $2, $3::text)`, exchange, key, body)
					return err
				})
			})
		})
	})
	if err != nil {
		return nil, err
	}
	s := f.sample()
	used.read(s, colClient, len(f.sent))
	s.addPeak(d.pid())
	return s, nil
}

// floor is the same without PostgreSQL and pgamqp: from publishing to the consumer.
func (w *world) floor(ctx context.Context, rate int, to destination) (Sample, error) {
	if err := w.reset(to); err != nil {
		return nil, err
	}
	w.settle(ctx)
	f := newFlight(rate, w.options.Time, w.options.Body)
	exchange, key := to.exchange(0)
	p := w.content().publishing()
	err := w.fly(ctx, f, to, func(ctx context.Context) error {
		return f.send(ctx, 1, func(ctx context.Context, use func(func(string) error) error) error {
			return w.withBroker(func(ch *amqp.Channel) error {
				// A quorum queue can lose what its publisher leaves behind unconfirmed.
				if err := ch.Confirm(false); err != nil {
					return err
				}
				var open []*amqp.DeferredConfirmation
				err := use(func(body string) error {
					p := p
					p.Body = []byte(body)
					c, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, p)
					open = append(open, c)
					return err
				})
				for _, c := range open {
					if err == nil {
						_, err = c.WaitContext(ctx)
					}
				}
				return err
			})
		})
	})
	if err != nil {
		return nil, err
	}
	return f.sample(), nil
}
