package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
)

// Columns of what moves messages.
const (
	colRate      = "messages_per_second"
	colClient    = "client_us"
	colWalsender = "walsender_us"
	colBroker    = "broker_us"
	colMemory    = "peak_memory_mib"
	colFirst     = "first_ms"   // until the server sends the first message
	colConfirm   = "confirm_ms" // from publishing to the confirm, mean
)

func movingColumns() []Column {
	return []Column{
		{Key: colRate, Title: "messages/s"},
		{Key: colClient, Title: "client µs", Digits: 2},
		{Key: colWalsender, Title: "walsender µs", Digits: 2},
		{Key: colBroker, Title: "broker µs", Digits: 1},
		{Key: colMemory, Title: "peak MiB", Digits: 1},
	}
}

// running is the daemon at work on a slot.
type running struct {
	*child
	world   *world
	since   time.Time // when it began to stream
	address string    // of its metrics
	// walsender is the server's process that it reads from.
	walsender int
}

// daemon starts `pgamqp run` on a slot and waits until it streams.
func (w *world) daemon(ctx context.Context, program, address, slot string, args ...string) (*running, error) {
	args = append([]string{
		"run", "--slot", slot, "--publication", "pgamqp",
		"--listen", "127.0.0.1:0", "--log-format", "json",
	}, args...)
	if w.options.Window > 0 {
		args = append(args, "--window-messages", strconv.Itoa(w.options.Window))
	}
	// Only here: what limits the daemon is measured as it is.
	environment := append(databaseEnvironment(address), w.options.Environment...)
	c, err := w.startProgram(program, nil, environment, args...)
	if err != nil {
		return nil, err
	}
	d := &running{child: c, world: w}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	streams, err := c.logged(limited, "streaming")
	if err == nil {
		d.since = streams.Time
		listens, _ := c.find("listening") // comes before
		d.address = listens.Address
		err = w.db.QueryRow(ctx, `select coalesce(active_pid, 0) from pg_replication_slots where slot_name = $1`, slot).Scan(&d.walsender)
	}
	if err != nil {
		_ = c.cmd.Process.Kill()
		<-c.ended
		return nil, fmt.Errorf("wait until pgamqp streams: %w", err)
	}
	return d, nil
}

// drain lets the daemon deliver a backlog.
func (w *world) drain(ctx context.Context, b *backlog, args ...string) (Sample, error) {
	return w.drainBy(ctx, w.options.Program, b, args...)
}

func (w *world) drainBy(ctx context.Context, program string, b *backlog, args ...string) (_ Sample, err error) {
	slot, err := w.copySlot(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := w.reset(b.to); err != nil {
		return nil, err
	}
	w.settle(ctx)
	s := make(Sample)
	broker := startMeter(w.brokerPID)
	d, err := w.daemon(ctx, program, b.address, slot, args...)
	if err != nil {
		return nil, err
	}
	walsender := meter{pid: d.walsender, known: w.local()}
	client := startMeter(d.pid())
	if err := d.awaitConfirmed(ctx, slot, b); err != nil {
		_ = d.cmd.Process.Kill()
		<-d.ended
		return nil, fmt.Errorf("%w; pgamqp said:\n%s", err, d.stderr.tail())
	}
	client.read(s, colClient, b.messages)
	walsender.read(s, colWalsender, b.messages)
	broker.read(s, colBroker, b.messages)
	s.addPeak(d.pid())
	m, err := d.metrics(ctx)
	if err != nil {
		return nil, err
	}
	last := time.UnixMicro(int64(m["pgamqp_last_confirmed_timestamp_seconds"] * 1e6))
	s[colConfirm] = m["pgamqp_publish_confirm_seconds_sum"] / m["pgamqp_publish_confirm_seconds_count"] * 1e3
	if err := d.stop(ctx); err != nil {
		return nil, err
	}
	s[colRate] = float64(b.messages) / last.Sub(d.since).Seconds()
	if err := w.dropSlot(ctx, slot); err != nil {
		return nil, err
	}
	if err := w.expect(ctx, b.to, b.messages); err != nil {
		return nil, fmt.Errorf("%w; pgamqp said:\n%s", err, d.stderr.text())
	}
	return s, nil
}

// local tells whether processes of PostgreSQL can be looked at.
func (w *world) local() bool { return w.options.DatabaseURL == "" }

// awaitConfirmed waits until the slot's position says that all of a backlog is confirmed. It asks
// rarely at first, as each question takes time from what is measured.
func (d *running) awaitConfirmed(ctx context.Context, slot string, b *backlog) error {
	for {
		var text string
		err := d.world.db.QueryRow(ctx, `select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1`, slot).Scan(&text)
		if err != nil {
			return err
		}
		at, err := pglogrepl.ParseLSN(text)
		if err != nil {
			return err
		}
		if at >= b.until {
			return nil
		}
		fraction := float64(at-min(at, b.from)) / float64(b.until-b.from)
		d.world.progress.At(fraction)
		pause := 20 * time.Millisecond
		if left := time.Duration(float64(time.Since(d.since)) * (1 - fraction)); left > time.Second {
			pause = 200 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-d.ended:
			return fmt.Errorf("pgamqp has ended: %w", d.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// metrics reads the daemon's, by name; there is one broker. When the last message was confirmed it
// knows itself: its reports to the slot come later.
func (d *running) metrics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics of pgamqp: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	found := make(map[string]float64)
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, rest, labeled := strings.Cut(lines.Text(), "{")
		_, value, _ := strings.Cut(rest, "} ")
		if v, err := strconv.ParseFloat(value, 64); labeled && err == nil {
			found[name] = v
		}
	}
	return found, lines.Err()
}

// settle waits until the broker has cleaned up what was before, if that can be told, and no longer
// than so many messages may take.
func (w *world) settle(ctx context.Context) {
	const look = 300 * time.Millisecond
	limit := time.Second + time.Duration(w.options.Messages)*100*time.Microsecond
	for began := time.Now(); time.Since(began) < limit; {
		before, known := cpuTime(w.brokerPID)
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return
		}
		if after, _ := cpuTime(w.brokerPID); !known || after-before < look/10 {
			return
		}
	}
}
