package bench

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStatisticOf(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   Statistic
	}{
		{[]float64{3}, Statistic{Median: 3, Min: 3, Max: 3}},
		{[]float64{4, 1, 2}, Statistic{Median: 2, Min: 1, Max: 4}},
		{[]float64{4, 1, 2, 8}, Statistic{Median: 3, Min: 1, Max: 8}},
	} {
		if got, ok := statisticOf(test.values); !ok || got != test.want {
			t.Errorf("statisticOf(%v) = %+v, %t, want %+v", test.values, got, ok, test.want)
		}
	}
	if _, ok := statisticOf(nil); ok {
		t.Error("nothing has a statistic")
	}
}

// TestRatiosAreMadeOfTheSameRound: the machine may be twice as fast in the next one.
func TestRatiosAreMadeOfTheSameRound(t *testing.T) {
	table := &Table{Compared: "rate", Columns: []Column{{Key: "rate"}}, Rows: []*Row{
		{Name: "limit", Samples: []Sample{{"rate": 100}, {"rate": 200}, {"rate": 400}}},
		{Name: "half", Base: "limit", Samples: []Sample{{"rate": 50}, {"rate": 100}, {"rate": 200}}},
		{Name: "broken off", Base: "limit", Samples: []Sample{{"rate": 25}, {}}},
	}}
	table.summarize()
	if got := table.row("half").Summary[ratioKey]; got != (Statistic{Median: 0.5, Min: 0.5, Max: 0.5}) {
		t.Errorf("ratio %+v, want 0.5 in all rounds", got)
	}
	if got := table.row("broken off").Ratios; !slices.Equal(got, []float64{0.25}) {
		t.Errorf("ratios %v, want one", got)
	}
	if _, ok := table.row("limit").Summary[ratioKey]; ok {
		t.Error("the base has a ratio")
	}
}

func TestMistakesInOptionsAreShownTogether(t *testing.T) {
	o := Options{
		Sections: []string{"delivery", "spead"}, Queues: []string{"classical"}, Transactions: []int{-1}, Rates: []int{0},
		Runs: 1, Messages: 1, Time: time.Second, DatabaseURL: "postgres://h/d", TLS: true,
	}
	err := o.check()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"spead"`, `"classical"`, "transaction of -1", "rate of 0", "--broker-url", "--tls"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %s: %v", want, err)
		}
	}
	good := Options{Sections: SectionNames(), Queues: queueTypes(), Transactions: []int{0, 1}, Rates: []int{1}, Runs: 1, Messages: 1, Time: 1}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

// TestCPUTimeOfThisProcessGrowsWithWork spins until it can be seen.
func TestCPUTimeOfThisProcessGrowsWithWork(t *testing.T) {
	m := startMeter(os.Getpid())
	s := make(Sample)
	for deadline := time.Now().Add(30 * time.Second); s["us"] < 2000; m.read(s, "us", 1) {
		if time.Now().After(deadline) {
			t.Fatal("no CPU time within half a minute of work")
		}
	}
	if peak, known := peakMemory(os.Getpid()); !known || peak < 1<<20 || peak > 1<<40 {
		t.Errorf("peak memory of %d bytes, %t", peak, known)
	}
	for _, pid := range []int{0, 1 << 30} {
		gone := make(Sample)
		startMeter(pid).read(gone, "us", 1)
		if len(gone) != 0 {
			t.Errorf("process %d has used %v", pid, gone)
		}
	}
}

// TestFlightTellsQuantiles: of messages that took 1, 2, ..., 100 ms.
func TestFlightTellsQuantiles(t *testing.T) {
	f := newFlight(100, time.Second, 20)
	if len(f.sent) != 200 {
		t.Fatalf("%d messages in two seconds of 100 each", len(f.sent))
	}
	for n := range f.sent {
		f.sent[n].Store(int64(n) * int64(f.interval))
		took := time.Hour // while warming up
		if n >= 100 {
			took = time.Duration(n-99) * time.Millisecond
		}
		f.came[n].Store(f.sent[n].Load() + int64(took))
	}
	s := f.sample()
	if s[colP50] != 51 || s[colP99] != 100 || s[colMax] != 100 || s[colAchieved] < 99.9 || s[colAchieved] > 100.1 {
		t.Errorf("sample %v", s)
	}
	if got := f.content(7); len(got) != 20 || !strings.HasPrefix(got, "7 x") {
		t.Errorf("content %q", got)
	}
}
