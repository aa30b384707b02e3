package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options says how the demo runs.
type Options struct {
	// Program is the path of pgamqp itself.
	Program string
	// Duration is how long pgbench publishes.
	Duration time.Duration
	// Rate is the number of pgbench transactions a second; 0 is as fast as it can.
	Rate int
	// Keep leaves the servers running until ctx ends.
	Keep bool
	// Out gets the progress and the result; Live tells that it is a terminal, where a
	// line may be overwritten.
	Out  io.Writer
	Live bool
}

// ErrWrong says that messages were missing, came twice or were never committed.
var ErrWrong = errors.New("what arrived is not what was committed; the table above tells what")

// Run runs the demo. It returns ErrWrong if the result is not perfect.
func Run(ctx context.Context, o Options) error {
	w := &world{options: o}
	defer w.close()
	step := func(text string) { fmt.Fprintf(o.Out, "%s\n", text) }

	step("starting a private PostgreSQL and two private RabbitMQ nodes ...")
	if err := w.startServers(ctx, 2); err != nil {
		return err
	}
	step("running: pgamqp install; pgamqp run ...")
	if err := w.startDaemon(ctx, setupSQL); err != nil {
		return err
	}
	w.hints()

	consumers, stopConsumers := errgroup.WithContext(ctx)
	seen := newSeen()
	for _, b := range w.brokers {
		deliveries, err := b.consume()
		if err != nil {
			return err
		}
		consumers.Go(func() error { return follow(stopConsumers, deliveries, seen.take) })
	}
	step(fmt.Sprintf("pgbench publishes for %s: 4 clients, commits, rollbacks, savepoints, autonomous calls ...", o.Duration))
	if err := w.load(ctx, seen); err != nil {
		return err
	}
	if err := w.publishLast(ctx); err != nil {
		return err
	}
	if err := consumers.Wait(); err != nil {
		return err
	}
	r, err := w.compare(ctx, seen)
	if err != nil {
		return err
	}
	r.print(o.Out)
	if o.Keep {
		step("\nThe servers keep running; Ctrl-C ends them. Look around:")
		w.hints()
		<-ctx.Done()
	}
	if !r.perfect() {
		return ErrWrong
	}
	return nil
}
