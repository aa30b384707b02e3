package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// benchReport is what `pgamqp bench --json` writes, as far as it is looked at.
type benchReport struct {
	Machine  map[string]string
	Sections []struct {
		Section  string
		Compared string
		Rows     []struct {
			Case    string
			Base    string `json:"compared_with"`
			Samples []map[string]float64
			Summary map[string]struct{ Median, Max float64 }
		}
	}
}

// runBench runs `pgamqp bench` and reads its result.
func runBench(t *testing.T, args ...string) (benchReport, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bench.json")
	cmd := exec.CommandContext(t.Context(), shared.program, append([]string{"bench", "--json", file}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := testserver.StartChild(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r benchReport
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	return r, out.String()
}

// check fails unless every case of a section has what it is compared by, in each run.
func (r *benchReport) check(t *testing.T, runs int, cases map[string]int) {
	t.Helper()
	if len(r.Sections) != len(cases) {
		t.Errorf("%d sections, want %d", len(r.Sections), len(cases))
	}
	for _, s := range r.Sections {
		if len(s.Rows) != cases[s.Section] {
			t.Errorf("section %s has %d cases, want %d", s.Section, len(s.Rows), cases[s.Section])
		}
		for _, row := range s.Rows {
			if len(row.Samples) != runs {
				t.Errorf("%s: %s: %d samples, want %d", s.Section, row.Case, len(row.Samples), runs)
			}
			if row.Summary[s.Compared].Median <= 0 {
				t.Errorf("%s: %s: %v", s.Section, row.Case, row.Summary)
			}
			if _, compared := row.Summary["ratio"]; compared != (row.Base != "") {
				t.Errorf("%s: %s is compared with %q: %v", s.Section, row.Case, row.Base, row.Summary)
			}
		}
	}
}

// TestBrokerBenchMeasures on private servers of its own, in the smallest size.
func TestBrokerBenchMeasures(t *testing.T) {
	t.Parallel()
	r, out := runBench(t, "--messages", "300", "--runs", "1", "--time", "1s", "--rate", "50", "--transaction", "1,0",
		"--section", "delivery,reading,latency,sql,tps,flat,memory")
	r.check(t, 1, map[string]int{"delivery": 6, "reading": 6, "latency": 2, "sql": 5, "tps": 4, "flat": 7, "memory": 5})
	if !strings.Contains(out, "classic: pgamqp, one tx") || r.Machine["PostgreSQL"] == "" {
		t.Errorf("the tables do not show what was measured:\n%s", out)
	}
}

// TestBrokerBenchUsesWhatItIsGiven measures servers that are there already, and leaves nothing
// behind; with TLS it starts its own.
func TestBrokerBenchUsesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	r, _ := runBench(t, "--database-url", w.url(), "--broker-url", shared.rabbit.URL(w.vhosts[0]),
		"--messages", "500", "--runs", "2", "--transaction", "1", "--section", "delivery,latency",
		"--queue", "quorum,stream", "--all-properties", "--rate", "500", "--time", "1s")
	r.check(t, 2, map[string]int{"delivery": 10, "latency": 4})
	for _, left := range []string{
		`select count(*) from pg_database where starts_with(datname, 'pgamqp_bench')`,
		`select count(*) from pg_replication_slots where starts_with(slot_name, 'pgamqp_bench')`,
	} {
		if n := query[int](w, left); n[0] != 0 {
			t.Errorf("%s: %d", left, n[0])
		}
	}
}

// TestBrokerBenchUsesTLS between all parts.
func TestBrokerBenchUsesTLS(t *testing.T) {
	t.Parallel()
	r, _ := runBench(t, "--messages", "500", "--runs", "1", "--transaction", "1", "--section", "delivery,latency",
		"--rate", "50", "--time", "1s", "--tls")
	r.check(t, 1, map[string]int{"delivery": 5, "latency": 2})
}

// TestGate fails when delivery has become much slower than publishing alone. It is alone on the
// machine, and a machine that is busy with something else gets four more chances.
func TestGate(t *testing.T) {
	const least = 0.85
	for try := 1; ; try++ {
		r, out := runBench(t, "--messages", "60000", "--runs", "3", "--section", "delivery", "--transaction", "1")
		t.Log("\n" + out)
		found := false
		ratio := 0.0
		for _, row := range r.Sections[0].Rows {
			if row.Case == "classic: pgamqp, 1/tx" {
				found, ratio = true, row.Summary["ratio"].Median
			}
		}
		switch {
		case !found:
			t.Fatal("the report has no row for pgamqp")
		case ratio >= least:
			return
		case try == 5:
			t.Fatalf("delivery has %.2f of the throughput of publishing alone, want %.2f at least", ratio, least)
		}
	}
}
