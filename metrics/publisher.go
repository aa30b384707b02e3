package metrics

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// unknownBroker is the label of messages that name no broker of amqp.broker. The number that such a message gives is
// data, and must not become a label.
const unknownBroker = "unknown"

// Publisher is what the broker side counts: a [Broker] for each destination.
type Publisher struct {
	published, confirmed, nacked, returned *prometheus.CounterVec
	retries, deadLettered, dropped         *prometheus.CounterVec
	connects                               *prometheus.CounterVec
	unconfirmed, window, lastConfirmed     *prometheus.GaugeVec
	connected, blocked, detached, holding  *prometheus.GaugeVec
	confirmSeconds, commitToConfirm        *prometheus.HistogramVec
	blockedSeconds                         *stopwatches
	buffers                                buffers

	mu      sync.Mutex // covers brokers
	brokers map[int32]*Broker
}

// NewPublisher declares the metrics of the broker side in reg.
func NewPublisher(reg prometheus.Registerer) *Publisher {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: name, Help: help,
		}, append([]string{"broker"}, labels...)))
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: name, Help: help,
		}, append([]string{"broker"}, labels...)))
	}
	histograms := func(name, help string) *prometheus.HistogramVec {
		return shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: name, Help: help, Buckets: secondsBuckets(),
		}, []string{"broker"}))
	}
	p := &Publisher{
		published: counters("published_messages_total",
			"Messages sent to the broker, every attempt counted.", "exchange"),
		confirmed: counters("confirmed_messages_total",
			"Messages that the broker confirmed.", "exchange"),
		nacked: counters("nacked_messages_total",
			"Negative confirms of the broker: it could not store the message.", "exchange"),
		returned: counters("returned_messages_total",
			"Messages that the broker returned, because no queue takes them.", "exchange", "reply_code"),
		retries: counters("publish_retries_total",
			"Messages sent again; the broker may have had the first copy.", "reason"),
		deadLettered: counters("dead_lettered_messages_total",
			"Messages stored in amqp.dead_letter, because trying again cannot help.", "reason"),
		dropped: counters("dropped_messages_total",
			"Messages thrown away because the broker would not take them and on_reject of amqp.broker is drop.", "reason"),
		unconfirmed: gauges("unconfirmed_messages",
			"Messages sent to the broker and not confirmed yet."),
		window: gauges("unconfirmed_window",
			"Bound of unconfirmed_messages, in messages."),
		confirmSeconds: histograms("publish_confirm_seconds",
			"Time from sending a message to the broker until its confirm, in seconds."),
		commitToConfirm: histograms("commit_to_confirm_seconds",
			"Time from the commit in PostgreSQL until the broker's confirm, in seconds, by the two servers' clocks."),
		lastConfirmed: gauges("last_confirmed_timestamp_seconds",
			"When the broker last confirmed a message, in seconds since 1970; 0 when it has not since the start."),
		connected: gauges("broker_connected",
			"1 for the host that the daemon is connected to, 0 for the broker's other hosts.", "host"),
		connects: counters("broker_connects_total",
			"Attempts to connect to the broker.", "result"),
		blocked: gauges("broker_blocked",
			"1 while the broker has an alarm for memory or disk and takes no messages, else 0."),
		detached: gauges("broker_detached",
			"1 while the broker has a slot of its own, because it took no messages and held up others, else 0."),
		holding: gauges("broker_holding",
			"1 while a message that the broker will not take is held, and all behind it wait (on_reject of amqp.broker is hold), else 0."),
		blockedSeconds: shared(reg, newStopwatches("broker_blocked_seconds_total",
			"Time during which the broker took no messages because of an alarm, in seconds.", "broker")),
		buffers: newBuffers(reg),
		brokers: make(map[int32]*Broker),
	}
	// increase() does not see a counter that appears with 1: whatever somebody is to be alerted of starts with 0.
	for _, reason := range []DeadLetterReason{ReasonUndecodable, ReasonInvalid, ReasonUnknownBroker} {
		p.Unaddressed(reason)
	}
	return p
}

// Broker returns the metrics of one destination, the same for the same id until [Publisher.Forget].
func (p *Publisher) Broker(id int32) *Broker {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.brokers[id]
	if !ok {
		b = newBroker(p, strconv.FormatInt(int64(id), 10))
		p.brokers[id] = b
	}
	return b
}

// Forget removes the series of a destination that was deleted from amqp.broker: a broker that nobody wants any more
// must not raise the alert for one that is down. What was returned for id before must not be used after.
func (p *Publisher) Forget(id int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.brokers[id]
	if !ok {
		return
	}
	delete(p.brokers, id)
	match := prometheus.Labels{"broker": b.label}
	for _, v := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{
		p.published, p.confirmed, p.nacked, p.returned, p.retries, p.deadLettered, p.dropped, p.connects,
		p.unconfirmed, p.window, p.lastConfirmed, p.connected, p.blocked, p.detached, p.holding, p.confirmSeconds, p.commitToConfirm,
	} {
		v.DeletePartialMatch(match)
	}
	p.blockedSeconds.remove(b.label)
	p.buffers.remove(stageWindow, "", b.label)
}

// Unaddressed returns the counter of dead letters that belong to no known broker.
func (p *Publisher) Unaddressed(reason DeadLetterReason) prometheus.Counter {
	return p.deadLettered.WithLabelValues(unknownBroker, string(reason))
}
