package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// task is what a worker does: a process of its own that runs against one limit.
type task struct {
	Kind string // publish, read or null

	// For publish.
	Target   target
	To       destination
	Content  content
	Confirm  bool // wait for confirms, of which Window may be open
	Window   int
	Gather   bool // write to the socket what has gathered, not each message
	BodyOnly bool // without a message_id

	// For read and null.
	Database string
	Slot     string

	Messages int
}

// result is what a worker has seen.
type result struct {
	Seconds   float64
	First     float64 // seconds until the first message came, of read and null
	Client    float64 // seconds of CPU time of the worker, 0 if not known
	Walsender float64 // the same of the server's process
	Memory    int64   // the worker's own peak, bytes; 0 if not known
}

// RunWorker is the life of a worker: it reads a task from in and writes the result to out.
func RunWorker(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	work := map[string]func(context.Context, *task) (result, error){"publish": publishOnly, "read": readOnly, "null": readAndForget}[t.Kind]
	if work == nil {
		return fmt.Errorf("there is no task %q", t.Kind)
	}
	r, err := work(ctx, &t)
	if err != nil {
		return err
	}
	r.Client = secondsOf(os.Getpid())
	r.Memory, _ = peakMemory(os.Getpid())
	return json.NewEncoder(out).Encode(r)
}

// work gives a task to a worker and returns what both have measured.
func (w *world) work(ctx context.Context, t *task) (Sample, error) {
	stdin, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	broker := startMeter(w.brokerPID)
	c, err := w.start(stdin, nil, "bench", "worker")
	if err != nil {
		return nil, err
	}
	if err := c.wait(ctx); err != nil {
		return nil, err
	}
	var r result
	if err := json.Unmarshal(c.stdout.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("read result of worker: %w", err)
	}
	s := Sample{colRate: float64(t.Messages) / r.Seconds}
	perMessage := func(key string, seconds float64) {
		if seconds > 0 {
			s[key] = seconds * 1e6 / float64(t.Messages)
		}
	}
	perMessage(colClient, r.Client)
	perMessage(colWalsender, r.Walsender)
	if t.Kind == "publish" {
		broker.read(s, colBroker, t.Messages)
	}
	if r.First > 0 {
		s[colFirst] = r.First * 1e3
	}
	if r.Memory > 0 {
		s[colMemory] = float64(r.Memory) / (1 << 20)
	}
	return s, nil
}

// since is a result that took from began to now.
func since(began time.Time) result { return result{Seconds: time.Since(began).Seconds()} }

// secondsOf is the CPU time of a process since its beginning, 0 if not known.
func secondsOf(pid int) float64 {
	used, _ := cpuTime(pid)
	return used.Seconds()
}
