package metrics

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxExchanges is how many exchanges of one broker get series of their own. The name of an exchange is data: without
// a bound, an application that makes names up would fill the memory of the daemon and of Prometheus.
const MaxExchanges = 200

// Labels of exchanges that cannot stand for themselves.
const (
	defaultExchange = "(AMQP default)" // the exchange without a name
	otherExchanges  = "other"          // all beyond MaxExchanges
)

// DeadLetterReason is the column reason of amqp.dead_letter.
type DeadLetterReason string

// Why a message ended in amqp.dead_letter.
const (
	ReasonUnroutable         DeadLetterReason = "unroutable"
	ReasonNotFound           DeadLetterReason = "not_found"
	ReasonAccessRefused      DeadLetterReason = "access_refused"
	ReasonPreconditionFailed DeadLetterReason = "precondition_failed"
	ReasonTooLarge           DeadLetterReason = "too_large"
	ReasonNacked             DeadLetterReason = "nacked"
	ReasonUndecodable        DeadLetterReason = "undecodable"
	ReasonInvalid            DeadLetterReason = "invalid"
	ReasonUnknownBroker      DeadLetterReason = "unknown_broker"
	ReasonRefused            DeadLetterReason = "refused"
	// ReasonForged is of what the SQL functions have not written, or not in this transaction.
	ReasonForged DeadLetterReason = "forged"
)

func deadLetterReasons() []DeadLetterReason {
	return []DeadLetterReason{
		ReasonUnroutable, ReasonNotFound, ReasonAccessRefused, ReasonPreconditionFailed, ReasonTooLarge,
		ReasonNacked, ReasonUndecodable, ReasonInvalid, ReasonUnknownBroker, ReasonRefused, ReasonForged,
	}
}

// ByBroker tells whether the reason lies with the broker, so that on_reject of its row decides. What cannot be read,
// has no broker, or breaks the protocol is a dead letter in any case.
func (r DeadLetterReason) ByBroker() bool {
	return r != ReasonUndecodable && r != ReasonInvalid && r != ReasonUnknownBroker && r != ReasonForged
}

// Broker is what the lane of one destination counts. Fields are handles: using them looks nothing up.
type Broker struct {
	Unconfirmed       prometheus.Gauge // messages in the window now
	UnconfirmedWindow prometheus.Gauge // its bound in messages, set once
	Window            Buffer           // the same in bytes
	ConfirmSeconds    prometheus.Observer
	CommitToConfirm   prometheus.Observer // seconds
	LastConfirmed     prometheus.Gauge    // Unix time: SetToCurrentTime
	Detached          prometheus.Gauge    // 1 while the broker has a slot of its own
	Holding           prometheus.Gauge    // 1 while a rejected message is held
	Connects          BrokerConnects
	Retries           Retries

	label string
	p     *Publisher

	deadLettered map[DeadLetterReason]prometheus.Counter // never changes
	dropped      map[DeadLetterReason]prometheus.Counter // never changes

	blockedGauge prometheus.Gauge
	blockedWatch *Stopwatch

	mu        sync.Mutex                           // covers hosts, blocked and changes of exchanges
	exchanges atomic.Pointer[map[string]*Exchange] // copied when it changes, so that reading takes no lock
	hosts     map[string]prometheus.Gauge          // by label value
	blocked   bool
	other     func() *Exchange // of all exchanges beyond MaxExchanges
}

// BrokerConnects counts attempts to connect, by result.
type BrokerConnects struct {
	OK          prometheus.Counter
	Unreachable prometheus.Counter // no connection, or it broke before the broker answered
	Denied      prometheus.Counter // the broker refused the login, the virtual host or the parameters
}

// Retries counts messages that were sent again, by reason.
type Retries struct {
	Nacked         prometheus.Counter // the broker could not store it this time
	ConnectionLost prometheus.Counter // the connection went away before the confirm
	ChannelClosed  prometheus.Counter // another message in the window made the broker close the channel
}

func newBroker(p *Publisher, label string) *Broker {
	b := &Broker{
		Unconfirmed:       p.unconfirmed.WithLabelValues(label),
		UnconfirmedWindow: p.window.WithLabelValues(label),
		Window:            p.buffers.with(stageWindow, "", label),
		ConfirmSeconds:    p.confirmSeconds.WithLabelValues(label),
		CommitToConfirm:   p.commitToConfirm.WithLabelValues(label),
		LastConfirmed:     p.lastConfirmed.WithLabelValues(label),
		Detached:          p.detached.WithLabelValues(label),
		Holding:           p.holding.WithLabelValues(label),
		Connects: BrokerConnects{
			OK:          p.connects.WithLabelValues(label, "ok"),
			Unreachable: p.connects.WithLabelValues(label, "unreachable"),
			Denied:      p.connects.WithLabelValues(label, "denied"),
		},
		Retries: Retries{
			Nacked:         p.retries.WithLabelValues(label, "nacked"),
			ConnectionLost: p.retries.WithLabelValues(label, "connection_lost"),
			ChannelClosed:  p.retries.WithLabelValues(label, "channel_closed"),
		},
		label: label, p: p,
		deadLettered: make(map[DeadLetterReason]prometheus.Counter),
		dropped:      make(map[DeadLetterReason]prometheus.Counter),
		blockedGauge: p.blocked.WithLabelValues(label),
		blockedWatch: p.blockedSeconds.with(label),
		hosts:        make(map[string]prometheus.Gauge),
	}
	for _, reason := range deadLetterReasons() {
		b.deadLettered[reason] = p.deadLettered.WithLabelValues(label, string(reason))
		if reason.ByBroker() {
			b.dropped[reason] = p.dropped.WithLabelValues(label, string(reason))
		}
	}
	b.exchanges.Store(&map[string]*Exchange{})
	b.other = sync.OnceValue(func() *Exchange { return newExchange(p, label, otherExchanges) })
	return b
}

// DeadLettered returns the counter of one reason. A reason outside the fixed list counts as refused, so that none is
// lost and none becomes a label by accident.
func (b *Broker) DeadLettered(reason DeadLetterReason) prometheus.Counter {
	return ofReason(b.deadLettered, reason)
}

// Dropped returns the counter of messages thrown away for one reason, with the same rule.
func (b *Broker) Dropped(reason DeadLetterReason) prometheus.Counter {
	return ofReason(b.dropped, reason)
}

func ofReason(counters map[DeadLetterReason]prometheus.Counter, reason DeadLetterReason) prometheus.Counter {
	if c, ok := counters[reason]; ok {
		return c
	}
	return counters[ReasonRefused]
}

// SetBlocked says whether the broker takes no messages because of an alarm. Saying the same twice does no harm.
func (b *Broker) SetBlocked(blocked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.blocked == blocked {
		return
	}
	b.blocked = blocked
	if blocked {
		b.blockedGauge.Set(1)
		b.blockedWatch.Start()
	} else {
		b.blockedGauge.Set(0)
		b.blockedWatch.Stop()
	}
}

// SetHosts gives the broker's host list, as host:port. Hosts that are new appear as not connected, hosts that are
// gone disappear.
func (b *Broker) SetHosts(hosts ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wanted := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		h = labelValue(h)
		wanted[h] = true
		b.host(h)
	}
	for h := range b.hosts {
		if !wanted[h] {
			delete(b.hosts, h)
			b.p.connected.DeleteLabelValues(b.label, h)
		}
	}
}

// Connected says which of the hosts the lane is connected to; "" means none.
func (b *Broker) Connected(host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range b.hosts {
		g.Set(0)
	}
	if host != "" {
		b.host(labelValue(host)).Set(1)
	}
}

// host returns the gauge of a host, made at first use. b.mu is held.
func (b *Broker) host(label string) prometheus.Gauge {
	g, ok := b.hosts[label]
	if !ok {
		g = b.p.connected.WithLabelValues(b.label, label)
		b.hosts[label] = g
	}
	return g
}

// Exchange is what is counted for each exchange of a broker.
type Exchange struct {
	Published prometheus.Counter // every attempt
	Confirmed prometheus.Counter
	Nacked    prometheus.Counter

	returned *prometheus.CounterVec // curried: only reply_code is open
}

func newExchange(p *Publisher, broker, label string) *Exchange {
	e := &Exchange{
		Published: p.published.WithLabelValues(broker, label),
		Confirmed: p.confirmed.WithLabelValues(broker, label),
		Nacked:    p.nacked.WithLabelValues(broker, label),
		returned:  p.returned.MustCurryWith(prometheus.Labels{"broker": broker, "exchange": label}),
	}
	e.Returned(312) // NO_ROUTE is what an alert is about, so it starts with 0
	return e
}

// Returned returns the counter of messages that came back with a reply code.
func (e *Exchange) Returned(replyCode uint16) prometheus.Counter {
	return e.returned.WithLabelValues(strconv.Itoa(int(replyCode)))
}

// Exchange returns the counters of an exchange. A known name costs one look into a map, without lock or allocation.
func (b *Broker) Exchange(name string) *Exchange {
	if e, ok := (*b.exchanges.Load())[name]; ok {
		return e
	}
	return b.addExchange(name)
}

func (b *Broker) addExchange(name string) *Exchange {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := *b.exchanges.Load()
	if e, ok := known[name]; ok {
		return e
	}
	if len(known) >= MaxExchanges {
		return b.other()
	}
	label := labelValue(name)
	if label == "" {
		label = defaultExchange
	}
	e := newExchange(b.p, b.label, label)
	next := maps.Clone(known)
	next[strings.Clone(name)] = e // the caller's name may share memory with a whole message
	b.exchanges.Store(&next)
	return e
}

// labelValue makes data fit for a label: Prometheus takes valid UTF-8 only.
func labelValue(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
