package isolation

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
)

const (
	// watchEvery is how often a lane's position is compared while something depends on it.
	watchEvery = 20 * time.Millisecond
	// closeBehind is what counts as caught up: the lane has confirmed what the main stream
	// had received so long ago.
	closeBehind = 1500 * time.Millisecond
	// rejoinLimit bounds the time in which a lane delivers what is left up to the cut. The
	// main stream holds what comes for its broker meanwhile, and all others' messages when
	// it can hold no more.
	rejoinLimit = 5 * time.Second
)

// run runs a lane until it has rejoined the main stream, or the epoch ends, or an error
// that stays.
func (e *epoch) run(broker int32, lane Lane) (joined bool, err error) {
	wait := backoff.New(time.Second, 30*time.Second)
	for e.ctx.Err() == nil {
		stream, stop := context.WithCancelCause(e.ctx)
		ended := make(chan error, 1)
		go func() { ended <- lane.Run(stream) }() // lane stream
		joined, err = e.follow(broker, lane, ended, func() error {
			stop(e.cfg.Abandoned)
			return <-ended
		})
		stop(e.cfg.Abandoned)
		if joined || err != nil {
			return joined, err
		}
		_ = wait.Wait(e.ctx)
	}
	return false, nil
}

// follow tries to rejoin whenever the lane has caught up. It returns false with the
// lane's stream ended if its slot could not be dropped.
func (e *epoch) follow(broker int32, lane Lane, ended <-chan error, stop func() error) (joined bool, err error) {
	wait := backoff.New(250*time.Millisecond, 10*time.Second)
	for {
		if ended, err := e.caughtUp(broker, lane, ended); ended {
			return false, err
		}
		cut := e.cfg.Main.Cut(broker)
		reached, over, err := e.reached(broker, lane, cut, ended)
		switch {
		case over:
			e.cfg.Main.Undo(broker)
			return false, err
		case !reached:
			e.cfg.Main.Undo(broker)
			e.log.Warn("broker had caught up and does not take the rest; it stays detached", attr(broker))
			if wait.Wait(e.ctx) != nil {
				return false, <-ended
			}
			continue
		}
		if err := stop(); err != nil {
			e.cfg.Main.Undo(broker)
			return false, err
		}
		e.complete(broker, true)
		gone, sure := e.drop(broker)
		switch {
		case gone:
			e.cfg.Main.Join(broker)
		case sure:
			e.complete(broker, false)
			e.cfg.Main.Undo(broker)
		}
		// Not sure: what the main stream keeps stays unconfirmed, whatever became of the slot.
		return gone, nil
	}
}

// caughtUp waits until the lane has confirmed what the main stream had received a
// moment ago. true means that the lane's stream has ended.
func (e *epoch) caughtUp(broker int32, lane Lane, ended <-chan error) (bool, error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	mark, since := e.cfg.Main.Received(), time.Now()
	for {
		select {
		case <-tick.C:
		case err := <-ended:
			return true, err
		}
		confirmed := e.confirmed(broker, lane)
		switch {
		case !lane.Working() || mark == 0 || time.Since(since) > closeBehind:
			mark, since = e.cfg.Main.Received(), time.Now()
		case confirmed >= mark:
			return false, nil
		}
	}
}

// reached waits until the lane has confirmed all up to the cut. False means that this
// takes too long, or that the lane has stopped working; over, that its stream has ended.
func (e *epoch) reached(broker int32, lane Lane, cut decoder.Position, ended <-chan error) (reached, over bool, err error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	limit := time.NewTimer(rejoinLimit)
	defer limit.Stop()
	for {
		if confirmed := e.confirmed(broker, lane); confirmed != 0 && cut.ConfirmedBy(confirmed) {
			return true, false, nil
		}
		if !lane.Working() {
			return false, false, nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return false, false, nil
		case err := <-ended:
			return false, true, err
		}
	}
}

// drop drops a broker's slot, and tries until it is known what has become of it. sure is
// false only at the end of the epoch.
func (e *epoch) drop(broker int32) (gone, sure bool) {
	wait := backoff.New(20*time.Millisecond, time.Second)
	began := time.Now()
	for {
		err := e.slots.Drop(e.ctx, broker)
		if err == nil {
			return true, true
		}
		there, lookErr := e.slots.List(e.ctx)
		switch {
		case lookErr != nil:
		case !slices.Contains(there, broker):
			return true, true
		case time.Since(began) > rejoinLimit:
			e.log.Warn("cannot drop the slot of a broker that has caught up; it stays detached", attr(broker), slog.Any("error", err))
			return false, true
		}
		if wait.Wait(e.ctx) != nil {
			return false, false
		}
	}
}
