package integration

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// postgresFaults end the server, or the connection that the daemon reads.
func postgresFaults() []fault {
	restart := func(end func(f *breakage) error) func(f *breakage) error {
		return func(f *breakage) error {
			began := time.Now()
			err := end(f)
			f.note("it took %s", time.Since(began).Round(time.Millisecond))
			f.hold(0, 2*time.Second)
			return errors.Join(err, f.postgres.Start())
		}
	}
	return []fault{
		{"postgres stopped fast", 2, []string{thePostgres}, restart(func(f *breakage) error { return f.postgres.Stop(testserver.Fast) })},
		{"postgres stopped smart", 2, []string{thePostgres}, restart(stopSmart)},
		{"postgres stopped immediately", 2, []string{thePostgres}, restart(func(f *breakage) error { return f.postgres.Stop(testserver.Immediate) })},
		{"postgres killed", 2, []string{thePostgres}, restart(func(f *breakage) error { return f.postgres.Kill() })},
		{"walsender killed", 2, []string{thePostgres}, func(f *breakage) error {
			ctx, cancel := f.within(startLimit)
			defer cancel()
			pid, err := f.holder(ctx)
			if err != nil || pid == 0 {
				f.note("there is none")
				return err
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)                               // it may have ended just now
			return f.withSession(ctx, func(conn *pgx.Conn) error { return nil }) // all of the server starts anew
		}},
		{"walsender terminated", 3, []string{thePostgres}, func(f *breakage) error {
			ctx, cancel := f.within(startLimit)
			defer cancel()
			return f.withSession(ctx, func(conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, `select pg_terminate_backend(active_pid) from pg_replication_slots where active`)
				return err
			})
		}},
	}
}

// stopSmart stops the server in the way that waits for its clients, ours among them. What it waits for
// then is the daemon.
func stopSmart(f *breakage) error {
	stopped := make(chan struct{})
	var left sync.WaitGroup
	left.Go(func() { // again and again: a session may have come back before the server has heard of the stop
		for again := time.NewTicker(50 * time.Millisecond); ; {
			f.leave.Add(1)
			select {
			case <-again.C:
			case <-stopped:
				again.Stop()
				return
			}
		}
	})
	began := time.Now()
	err := f.postgres.Stop(testserver.Smart)
	close(stopped)
	left.Wait()
	// The daemon lets go after two seconds; a transaction of the load may take some, too.
	if took := time.Since(began); err == nil && took > 20*time.Second {
		err = fmt.Errorf("it took %s", took)
	}
	return err
}
