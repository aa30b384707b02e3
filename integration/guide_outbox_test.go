package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

const outboxFolder = "../docs/guides/outbox"

// guideProgram is a program of docs/guides/outbox, and how it is run. The first word is found by the PATH, or is what
// Debian's packages are for.
type guideProgram struct {
	file    string
	command []string
}

// guidePrograms returns the programs that place orders and those that ship them, ready to run.
func guidePrograms(t *testing.T) (placing, shipping []guideProgram) {
	t.Helper()
	folder := t.TempDir()
	build := func(name string) string {
		program := filepath.Join(folder, name)
		must(t, "go", "build", "-o", program, outboxFolder+"/"+name)
		return program
	}
	// Node looks for modules beside the script.
	modules, err := filepath.Abs("guides/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(folder, "node_modules")); err != nil {
		t.Fatal(err)
	}
	script := func(name string) string {
		text, err := os.ReadFile(filepath.Join(outboxFolder, name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const python, jdbc = "/usr/bin/python3", "/usr/share/java/postgresql.jar"
	return []guideProgram{
		{"placeorder/main.go", []string{build("placeorder")}},
		{"place_order.py", []string{python, script("place_order.py")}},
		{"PlaceOrder.java", []string{"java", "-cp", jdbc, script("PlaceOrder.java")}},
		{"place_order.mjs", []string{"node", script("place_order.mjs")}},
	}, []guideProgram{
		{"shiporders/main.go", []string{build("shiporders")}},
		{"ship_orders.py", []string{python, script("ship_orders.py")}},
		{"ship_orders.mjs", []string{"node", script("ship_orders.mjs")}},
	}
}

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// guideEnvironment is what the programs of the guide are told.
func (w *world) guideEnvironment() []string {
	const role = "shop_application"
	return append(cleanEnvironment(),
		"DATABASE_URL="+w.urlAs(role),
		fmt.Sprintf("JDBC_URL=jdbc:postgresql://127.0.0.1:%d/%s?user=%s&password=%s", w.postgres.Port(), w.database, role, rolePassword),
		"BROKER_URL="+w.rabbit.URL(w.vhosts[0]),
		"TRACEPARENT="+traceparent)
}

// TestGuideToTheOutboxHolds runs docs/guides/outbox.md: its statements, and the programs in each language against what
// the statements have made.
func TestGuideToTheOutboxHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	placing, shipping := guidePrograms(t)
	d := w.start()
	conn := w.connect()
	embedded := map[string]int{}
	for _, b := range claimed(t, "docs/guides/outbox.md") {
		if b.Language != "sql" {
			embedded[b.Text]++
			continue
		}
		runSQL(t, conn, b)
		switch b.Section {
		case "Prepare", "Consume", "Waiting for the delivery":
		case "What a rollback does":
			w.wantBodies("shipping", `"first"`, `"second"`, `"an attempt"`)
		case "Prepared statements, poolers, ORMs":
			w.wantBodies("shipping", `{"id": 1}`)
		case "Testing your code":
			w.wantBodies("shipping", `{"id": 7}`)
		default:
			t.Errorf("%s: nobody looks at what comes of the section %q", b, b.Section)
		}
	}
	for _, p := range append(placing, shipping...) {
		text, err := os.ReadFile(filepath.Join(outboxFolder, p.file))
		if err != nil {
			t.Fatal(err)
		}
		if embedded[string(text)] != 1 {
			t.Errorf("%s is not in the guide as it is", p.file)
		}
		delete(embedded, string(text))
	}
	for text := range embedded {
		t.Errorf("the guide has a program that is no file of its folder:\n%s", text)
	}
	for i, p := range placing {
		w.checkPlacing(p, fmt.Sprintf("5fd2e0e4-9d7c-4d3a-8a52-0000000%d0000", i))
	}
	for i, p := range shipping {
		w.checkShipping(p, fmt.Sprintf("7c1a3a5e-2f0b-4c57-9d7b-0000000%d0000", i))
	}
	d.stop()
}

// wantBodies checks what a queue holds, and takes it.
func (w *world) wantBodies(queue string, want ...string) {
	w.t.Helper()
	if got := bodies(w.received(1, queue)); strings.Join(got, ", ") != strings.Join(want, ", ") {
		w.t.Errorf("%q came, want %q", got, want)
	}
}

// checkPlacing lets a program place an order, and one of too many pieces, which is rolled back behind its message.
func (w *world) checkPlacing(p guideProgram, id string) {
	w.t.Helper()
	place := func(id, pieces string) (string, error) {
		c := exec.CommandContext(withDeadline(w.t, time.Minute), p.command[0], append(p.command[1:], id, "chair", pieces)...)
		c.Env = w.guideEnvironment()
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := place(id, "2"); err != nil {
		w.t.Fatalf("%s: %v\n%s", p.file, err, out)
	}
	tooMany := id[:len(id)-4] + "9999"
	if out, err := place(tooMany, "1000"); err == nil || !strings.Contains(out, "stock_pieces_check") {
		w.t.Errorf("%s: an order of too many ends with %v\n%s", p.file, err, out)
	}
	got := w.received(1, "shipping")
	if len(got) != 1 {
		w.t.Fatalf("%s: %q came, want one message", p.file, bodies(got))
	}
	m := got[0]
	if want := `{"id": "` + id + `", "item": "chair", "pieces": 2}`; string(m.Body) != want || m.ContentType != "application/json" {
		w.t.Errorf("%s: %q of type %q came, want %q", p.file, m.Body, m.ContentType, want)
	}
	if m.RoutingKey != "order.placed" || m.MessageId != "order-placed-"+id || m.Headers["traceparent"] != traceparent || m.DeliveryMode != 2 {
		w.t.Errorf("%s: the message has key %q, id %q, headers %v, delivery mode %d", p.file, m.RoutingKey, m.MessageId, m.Headers, m.DeliveryMode)
	}
	if n := value[int](w, `select count(*)::int from orders where id::text in ($1, $2)`, id, tooMany); n != 1 {
		w.t.Errorf("%s: %d orders are there, want one", p.file, n)
	}
}

// checkShipping lets a program take a message that comes again and again, more often than it asks for without an
// acknowledgement, and one behind it.
func (w *world) checkShipping(p guideProgram, id string) {
	w.t.Helper()
	last := id[:len(id)-4] + "9999"
	for _, id := range append(slices.Repeat([]string{id}, 12), last) {
		w.exec(`select amqp.publish(1, 'shop', 'order.placed', jsonb_build_object('id', $1::text), message_id => 'order-placed-' || $1::text)`, id)
	}
	w.waitDelivered()
	shipped := func(id string) int {
		return value[int](w, `select count(*)::int from shipments where order_id::text = $1`, id)
	}
	c := exec.Command(p.command[0], p.command[1:]...)
	var log logBuffer
	c.Env, c.Stdout, c.Stderr = w.guideEnvironment(), &log, &log
	if err := testserver.StartChild(c); err != nil {
		w.t.Fatal(err)
	}
	stop := func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	w.t.Cleanup(stop)
	await(w.t, time.Minute, p.file+" has taken all messages", func() bool { return shipped(last) == 1 })
	stop()
	if n := shipped(id); n != 1 {
		w.t.Errorf("%s: %d shipments of a message that came again\n%s", p.file, n, log.String())
	}
}
