package metrics_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/metrics"
)

func TestExchangesBeyondTheBoundCountAsOther(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := metrics.NewPublisher(reg).Broker(1)
	for i := range metrics.MaxExchanges + 50 {
		b.Exchange(fmt.Sprintf("x%d", i)).Confirmed.Inc()
	}
	b.Exchange("x0").Confirmed.Inc()
	got := scrape(t, reg)
	if v := got[`pgamqp_confirmed_messages_total{broker="1",exchange="other"}`]; v != "50" {
		t.Errorf("other = %s, want 50", v)
	}
	if v := got[`pgamqp_confirmed_messages_total{broker="1",exchange="x0"}`]; v != "2" {
		t.Errorf("x0 = %s, want 2", v)
	}
	n := 0
	for series := range got {
		if strings.HasPrefix(series, "pgamqp_confirmed_messages_total") {
			n++
		}
	}
	if n != metrics.MaxExchanges+1 {
		t.Errorf("%d series, want %d", n, metrics.MaxExchanges+1)
	}
}

func TestExchangeNamesThatAreNoLabelsStillCount(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := metrics.NewPublisher(reg).Broker(1)
	b.Exchange("").Published.Inc()
	b.Exchange("a\xffb").Published.Inc()
	b.Exchange("a\xfeb").Published.Inc()
	got := scrape(t, reg)
	for series, want := range map[string]string{
		`pgamqp_published_messages_total{broker="1",exchange="(AMQP default)"}`: "1",
		"pgamqp_published_messages_total{broker=\"1\",exchange=\"a\uFFFDb\"}":   "2",
	} {
		if got[series] != want {
			t.Errorf("%s = %q, want %s", series, got[series], want)
		}
	}
}

func TestKnownExchangeCostsNoAllocation(t *testing.T) {
	b := metrics.NewPublisher(prometheus.NewRegistry()).Broker(1)
	b.Exchange("orders")
	if n := testing.AllocsPerRun(100, func() { b.Exchange("orders").Published.Inc() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestExchangesMayAppearFromManyGoroutines(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := metrics.NewPublisher(reg).Broker(1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				b.Exchange(fmt.Sprintf("x%d", i)).Published.Inc()
			}
		})
	}
	wg.Wait()
	for series, v := range scrape(t, reg) {
		if strings.HasPrefix(series, "pgamqp_published_messages_total") && v != "8" {
			t.Errorf("%s = %s, want 8", series, v)
		}
	}
}

func TestOnlyOneHostIsConnected(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := metrics.NewPublisher(reg).Broker(1)
	series := func(host string) string { return `pgamqp_broker_connected{broker="1",host="` + host + `"}` }
	check := func(want map[string]string) {
		t.Helper()
		got := scrape(t, reg)
		for host, v := range want {
			if got[series(host)] != v {
				t.Errorf("%s = %q, want %q", host, got[series(host)], v)
			}
		}
	}
	b.SetHosts("a", "b")
	check(map[string]string{"a": "0", "b": "0"})
	b.Connected("a")
	check(map[string]string{"a": "1", "b": "0"})
	b.Connected("b")
	check(map[string]string{"a": "0", "b": "1"})
	b.SetHosts("b", "c")
	check(map[string]string{"a": "", "b": "1", "c": "0"})
	b.Connected("")
	check(map[string]string{"b": "0", "c": "0"})
}

func TestForgottenBrokerLeavesNoSeries(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	p := metrics.NewPublisher(reg)
	p.Broker(2)
	b := p.Broker(1)
	b.SetHosts("a")
	b.SetBlocked(true)
	b.Exchange("x").Returned(312).Inc()
	b.Window.Backpressure.Start()
	b.ConfirmSeconds.Observe(1)
	p.Forget(1)
	p.Forget(1)
	others := 0
	for series := range scrape(t, reg) {
		if strings.Contains(series, `broker="1"`) {
			t.Errorf("%s is still there", series)
		}
		if strings.Contains(series, `broker="2"`) {
			others++
		}
	}
	if others == 0 {
		t.Error("the other broker lost its series")
	}
	if p.Broker(1) == b {
		t.Error("a forgotten broker must come back as a new one")
	}
}

func TestDeadLettersStartAtZeroAndUnknownReasonsAreNotLost(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	p := metrics.NewPublisher(reg)
	b := p.Broker(1)
	b.DeadLettered("something new").Inc()
	b.Dropped("something new").Inc()
	b.Dropped(metrics.ReasonNacked).Inc()
	p.Unaddressed(metrics.ReasonUnknownBroker).Inc()
	got := scrape(t, reg)
	for series, want := range map[string]string{
		`pgamqp_dead_lettered_messages_total{broker="1",reason="unroutable"}`:           "0",
		`pgamqp_dead_lettered_messages_total{broker="1",reason="refused"}`:              "1",
		`pgamqp_dead_lettered_messages_total{broker="unknown",reason="unknown_broker"}`: "1",
		`pgamqp_dead_lettered_messages_total{broker="unknown",reason="undecodable"}`:    "0",
		`pgamqp_dropped_messages_total{broker="1",reason="refused"}`:                    "1",
		`pgamqp_dropped_messages_total{broker="1",reason="nacked"}`:                     "1",
		`pgamqp_dropped_messages_total{broker="1",reason="unroutable"}`:                 "0",
	} {
		if got[series] != want {
			t.Errorf("%s = %q, want %s", series, got[series], want)
		}
	}
}
