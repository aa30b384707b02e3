package bench

import (
	"context"
	"fmt"
	"iter"
	"os/exec"
	"slices"
	"strconv"
)

// sections returns what was asked for.
func (w *world) sections() []Section {
	var out []Section
	for _, name := range SectionNames() {
		if !slices.Contains(w.options.Sections, name) {
			continue
		}
		switch name {
		case "delivery":
			out = append(out, w.deliverySection())
		case "reading":
			out = append(out, w.readingSection())
		case "latency":
			out = append(out, w.latencySection())
		case "sql":
			out = append(out, w.sqlSection())
		case "tps":
			pgbench, err := exec.LookPath("pgbench")
			if err != nil {
				w.notes = append(w.notes, "tps is left out: pgbench is not installed here")
				continue
			}
			out = append(out, w.tpsSection(pgbench))
		case "flat":
			out = append(out, w.flatSection())
		case "memory":
			out = append(out, w.memorySection())
		case "sweep":
			out = append(out, w.sweepSection())
		case "rows":
			out = append(out, w.rowsSection())
		}
	}
	if len(w.options.Cases) > 0 {
		for i := range out {
			out[i].Cases = slices.DeleteFunc(out[i].Cases, func(c Case) bool { return c.Base != "" && !w.options.wants(c.Name) })
		}
	}
	return out
}

// stock is backlogs that the cases of a section share: made before, gone after.
type stock struct {
	w      *world
	recipe []func(context.Context) (*backlog, error)
	made   []*backlog
}

// add promises a backlog and returns where it can be found once it is made.
func (s *stock) add(c content, messages, perTransaction int, to destination) func() *backlog {
	n := len(s.recipe)
	s.recipe = append(s.recipe, func(ctx context.Context) (*backlog, error) {
		return s.w.load(ctx, c, messages, perTransaction, to)
	})
	return func() *backlog { return s.made[n] }
}

func (s *stock) make(ctx context.Context) error {
	for i, r := range s.recipe {
		s.w.progress.At(float64(i) / float64(len(s.recipe)))
		b, err := r(ctx)
		if err != nil {
			return err
		}
		s.made = append(s.made, b)
	}
	// The server writes what was loaded now, not while it is measured.
	_, err := s.w.admin.Exec(ctx, `checkpoint`)
	return err
}

// remove drops the databases with their slots, which hold the WAL, and the queue.
func (s *stock) remove(ctx context.Context) error {
	for _, b := range s.made {
		if err := s.w.dropDatabase(ctx, b.database); err != nil {
			return err
		}
	}
	return s.w.remove(s.w.destination("classic", maxExchanges))
}

// with gives a section its stock.
func (s *stock) with(section Section) Section {
	section.Prepare, section.Clean = s.make, s.remove
	return section
}

// maxExchanges is the most that a section uses.
const maxExchanges = 50

// deliverySection compares pgamqp with a loop that does nothing but publish.
func (w *world) deliverySection() Section {
	stock := &stock{w: w}
	s := Section{
		Name: "delivery", Title: fmt.Sprintf("Delivery of %d messages of %d bytes, against a loop that only publishes", w.options.Messages, w.options.Body),
		Columns: movingColumns(), Compared: colRate, Against: "only publishing",
	}
	var backlogs []func() *backlog
	for _, n := range w.options.Transactions {
		backlogs = append(backlogs, stock.add(w.content(), w.options.Messages, n, w.destination("classic", 0)))
	}
	for _, queue := range w.options.Queues {
		to := w.destination(queue, 0)
		base := queue + ": only publishing, confirms"
		for _, limit := range []struct {
			name string
			task task
		}{
			{base, task{Confirm: true}},
			{queue + ": the same, gathered writes", task{Confirm: true, Gather: true}},
			{queue + ": the same, without message_id", task{Confirm: true, Gather: true, BodyOnly: true}},
			{queue + ": without confirms", task{Gather: true}},
		} {
			limit.task.Content = w.content()
			against := base
			if limit.name == base {
				against = ""
			}
			s.Cases = append(s.Cases, w.publishCase(limit.name, against, to, limit.task))
		}
		for i, n := range w.options.Transactions {
			for name, program := range w.programs() {
				s.Cases = append(s.Cases, Case{
					Name: queue + ": " + name + ", " + perTransaction(n), Base: base,
					Run: func(ctx context.Context) (Sample, error) { return w.drainTo(ctx, program, backlogs[i](), to) },
				})
			}
		}
	}
	return stock.with(s)
}

// publishCase is a loop that does nothing but publish the task's content.
func (w *world) publishCase(name, base string, to destination, t task) Case {
	t.Kind, t.Target, t.To, t.Window, t.Messages = "publish", w.target(), to, ceilingWindow, w.options.Messages
	return Case{Name: name, Base: base, Run: func(ctx context.Context) (Sample, error) {
		if err := w.reset(to); err != nil {
			return nil, err
		}
		w.settle(ctx)
		s, err := w.work(ctx, &t)
		if err != nil || !t.Confirm { // a quorum queue may lose what it has not confirmed
			return s, err
		}
		return s, w.expect(ctx, to, t.Messages)
	}}
}

// programs yields what delivers: pgamqp, and another one if that was given.
func (w *world) programs() iter.Seq2[string, string] {
	return func(yield func(name, path string) bool) {
		if yield("pgamqp", w.options.Program) && w.options.Other != "" {
			yield("the other pgamqp", w.options.Other)
		}
	}
}

// drainTo delivers a backlog to a queue that may be of another type than when it was loaded.
func (w *world) drainTo(ctx context.Context, program string, b *backlog, to destination) (Sample, error) {
	other := *b
	other.to = to
	return w.drainBy(ctx, program, &other)
}

// readingSection compares pgamqp without a broker with a bare loop.
func (w *world) readingSection() Section {
	stock := &stock{w: w}
	s := Section{
		Name: "reading", Title: fmt.Sprintf("Reading of %d messages of %d bytes, without a broker", w.options.Messages, w.options.Body),
		Columns: slices.DeleteFunc(movingColumns(), func(c Column) bool { return c.Key == colBroker }), Compared: colRate, Against: "the loop",
	}
	s.Columns = append(s.Columns, Column{Key: colFirst, Title: "first after ms"})
	program, err := exec.LookPath("pg_recvlogical")
	if err != nil {
		w.notes = append(w.notes, "pg_recvlogical is not installed here and left out")
	}
	for _, n := range w.options.Transactions {
		b := stock.add(w.content(), w.options.Messages, n, w.destination("classic", 0))
		base := perTransaction(n) + ": loop on pglogrepl"
		s.Cases = append(s.Cases,
			Case{Name: base, Run: func(ctx context.Context) (Sample, error) { return w.read(ctx, b(), "read") }},
			Case{Name: perTransaction(n) + ": pgamqp, nothing published", Base: base, Run: func(ctx context.Context) (Sample, error) {
				return w.read(ctx, b(), "null")
			}})
		if err == nil {
			s.Cases = append(s.Cases, Case{Name: perTransaction(n) + ": pg_recvlogical", Base: base, Run: func(ctx context.Context) (Sample, error) {
				return w.receive(ctx, b(), program)
			}})
		}
	}
	return stock.with(s)
}

func (w *world) latencySection() Section {
	s := Section{
		Name: "latency", Title: fmt.Sprintf("From the answer to COMMIT until a consumer has the message, %s each", w.options.Time),
		Columns: latencyColumns(), Compared: colP50, Against: "without PostgreSQL",
		Clean: func(context.Context) error { return w.remove(w.destination("classic", 0)) },
	}
	for _, queue := range w.options.Queues {
		to := w.destination(queue, 0)
		for _, rate := range w.options.Rates {
			base := fmt.Sprintf("%s, %d/s: publishing, without PostgreSQL", queue, rate)
			s.Cases = append(s.Cases,
				Case{Name: base, Run: func(ctx context.Context) (Sample, error) { return w.floor(ctx, rate, to) }},
				Case{Name: fmt.Sprintf("%s, %d/s: pgamqp", queue, rate), Base: base, Run: func(ctx context.Context) (Sample, error) {
					return w.latency(ctx, rate, to)
				}})
		}
	}
	return s
}

// flatSection shows that a message costs the same whatever its number and that of exchanges.
func (w *world) flatSection() Section {
	stock := &stock{w: w}
	s := Section{Name: "flat", Title: "Cost of a message, by size of the backlog and number of exchanges", Columns: movingColumns(), Compared: colClient, Against: "the first"}
	add := func(name string, messages, exchanges int) {
		to := w.destination(w.options.Queues[0], exchanges)
		if to.Arguments["x-queue-type"] == "classic" && messages > 1_000_000 {
			to.Arguments["x-max-length"] = 1_000_000 // it is not about the broker's memory
		}
		b := stock.add(w.content(), messages, 100, to)
		c := Case{Name: name, Run: func(ctx context.Context) (Sample, error) { return w.drain(ctx, b()) }}
		if len(s.Cases) > 0 {
			c.Base = s.Cases[0].Name
		}
		s.Cases = append(s.Cases, c)
	}
	n := w.options.Messages
	for _, size := range []int{max(1, n/10), max(1, n/100), n, n * 10} {
		add(strconv.Itoa(size)+" messages", size, 0)
	}
	for _, exchanges := range []int{1, 10, maxExchanges} {
		add(fmt.Sprintf("%d messages over %d exchanges", n, exchanges), n, exchanges)
	}
	return stock.with(s)
}

// memorySection looks for what makes the daemon grow.
func (w *world) memorySection() Section {
	stock := &stock{w: w}
	s := Section{Name: "memory", Title: "The daemon's largest resident set", Columns: movingColumns(), Compared: colMemory}
	for _, m := range []struct {
		name                           string
		messages, body, perTransaction int
	}{
		{"bodies of 200 bytes, 1/tx", w.options.Messages, 200, 1},
		{"bodies of 200 bytes, one tx", w.options.Messages, 200, 0},
		{"bodies of 2 kB, 1/tx", w.options.Messages / 4, 2000, 1},
		{"bodies of 2 kB, one tx", w.options.Messages / 4, 2000, 0},
		{"bodies of 16 MiB, 1/tx", 40, 16 << 20, 1},
	} {
		c := w.content()
		c.Body = m.body
		b := stock.add(c, m.messages, m.perTransaction, w.destination(w.options.Queues[0], 0))
		s.Cases = append(s.Cases, Case{Name: m.name, Run: func(ctx context.Context) (Sample, error) { return w.drain(ctx, b()) }})
	}
	return stock.with(s)
}

// The sweep's choices.
func sweepWindows() []int      { return []int{16, 64, 256, 1024, 2048, 4096, 8192} }
func sweepTransactions() []int { return []int{1, 10, 100, 1000} }

func sweepName(window, perTx int) string {
	return fmt.Sprintf("window %d, %s", window, perTransaction(perTx))
}

// sweepSection shows what window and transactions do to throughput and confirms.
func (w *world) sweepSection() Section {
	stock := &stock{w: w}
	s := Section{
		Name: "sweep", Title: fmt.Sprintf("Delivery of %d messages, by window and size of transactions", w.options.Messages),
		Columns: append(movingColumns(), Column{Key: colConfirm, Title: "ms to confirm", Digits: 1}), Compared: colRate,
	}
	to := w.destination(w.options.Queues[0], 0)
	for _, perTx := range sweepTransactions() {
		b := stock.add(w.content(), w.options.Messages, perTx, to)
		for _, window := range sweepWindows() {
			s.Cases = append(s.Cases, Case{Name: sweepName(window, perTx), Run: func(ctx context.Context) (Sample, error) {
				return w.drain(ctx, b(), "--window-messages", strconv.Itoa(window))
			}})
		}
	}
	return stock.with(s)
}
