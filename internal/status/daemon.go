package status

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Daemon is what a daemon said at a moment. Counters are totals since its start.
type Daemon struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	// State is connecting, streaming, standby, slot_lost or stopped.
	State string `json:"state"`
	// LagSeconds is the age of the oldest unconfirmed commit, 0 when there is none.
	LagSeconds  float64 `json:"lag_seconds"`
	Received    float64 `json:"received_messages"`
	DeadLetters float64 `json:"dead_letters"` // that wait now
	// Heartbeat is when the last one came through, zero before the first.
	Heartbeat time.Time `json:"last_heartbeat"`
	// Slots are as the daemon saw them last: that of all brokers, behind it those of detached ones.
	Slots []Slot `json:"slots"`
	// Letters counts dead letters since the start of the daemon, by reason.
	Letters map[string]float64 `json:"dead_lettered_by_reason"`

	Brokers []Broker `json:"brokers"` // by id
}

// Slot is what a daemon says of its slot, in bytes of WAL.
type Slot struct {
	Name  string  `json:"name"`
	State string  `json:"state"` // as that of a Daemon
	Lag   float64 `json:"lag_bytes"`
	// LagSeconds is the age of the oldest commit that is not confirmed, 0 when there is none.
	LagSeconds float64  `json:"lag_seconds"`
	Retained   float64  `json:"retained_wal_bytes"`
	Safe       *float64 `json:"safe_wal_bytes"` // nil without a limit
	Status     string   `json:"wal_status"`
}

// Broker is what it said of one broker.
type Broker struct {
	ID       int32  `json:"broker_id"`
	Hosts    []Host `json:"hosts"`
	Blocked  bool   `json:"blocked"`  // by an alarm of RabbitMQ
	Detached bool   `json:"detached"` // reads a slot of its own
	Holding  bool   `json:"holding"`  // on_reject is hold, and a message is tried again

	Unconfirmed float64 `json:"unconfirmed_messages"`
	Window      float64 `json:"window_messages"`

	Published    float64 `json:"published_messages"`
	Confirmed    float64 `json:"confirmed_messages"`
	Nacked       float64 `json:"nacked_messages"`
	Returned     float64 `json:"returned_messages"`
	DeadLettered float64 `json:"dead_lettered_messages"`

	confirms histogram // from publish to confirm, in seconds
}

// Host is an address of a broker.
type Host struct {
	Address   string `json:"address"`
	Connected bool   `json:"connected"`
}

// Word is the broker's state for programs: one word.
func (b *Broker) Word() string { return strings.NewReplacer(", ", "_", " ", "_").Replace(b.State()) }

// State is the broker's state for people, as short as can be.
func (b *Broker) State() string {
	connected := slices.ContainsFunc(b.Hosts, func(h Host) bool { return h.Connected })
	switch {
	case !connected && b.Detached:
		return "detached, disconnected"
	case !connected && len(b.Hosts) > 0:
		return "disconnected"
	case b.Blocked:
		return "blocked"
	case b.Holding:
		return "holding"
	case b.Detached:
		return "catching up"
	case connected:
		return "connected"
	}
	return "idle" // nothing was sent to it yet
}

// Read asks the daemon whose HTTP server listens on an address, host:port.
func Read(ctx context.Context, address string) (Daemon, error) {
	d, err := read(ctx, address)
	if err != nil {
		return d, fmt.Errorf("ask the daemon at %s: %w", named(address), err)
	}
	return d, nil
}

const mostMetrics = 16 << 20 // bytes; a daemon with thousands of exchanges has less

func read(ctx context.Context, address string) (Daemon, error) {
	response, err := get(ctx, address, "/metrics")
	if err != nil {
		return Daemon{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return Daemon{}, fmt.Errorf("it answers %s", response.Status)
	}
	return parse(io.LimitReader(response.Body, mostMetrics), time.Now())
}

// parse reads the metrics of a daemon.
func parse(text io.Reader, at time.Time) (Daemon, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return Daemon{}, fmt.Errorf("read its metrics: %w", err)
	}
	d := fromMetrics(families, at)
	if d.Version == "" {
		return d, errors.New("what listens there is not pgamqp")
	}
	return d, nil
}

// named is an address as it may be shown: without a password.
func named(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Redacted()
	}
	return address
}

// get sends one request to the daemon at an address, which is host:port, as it listens, or a URL.
func get(ctx context.Context, address, path string) (*http.Response, error) {
	if strings.Contains(address, "://") {
		return getURL(ctx, address, path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // a daemon that listens on all addresses
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address) // which needs no name for this machine
	}
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}).Do(request)
}

func getURL(ctx context.Context, address, path string) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("its URL cannot be read") // it may hold a password
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath(path).String(), nil)
	if err != nil {
		return nil, errors.New("its URL cannot be read")
	}
	return (&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}}).Do(request)
}

const mostHealth = 4 << 10 // bytes; a sentence

// Health asks the daemon at an address how it is, by one of its paths for supervisors. It returns what the daemon says,
// and an error if that is not well.
func Health(ctx context.Context, address, path string) (string, error) {
	response, err := get(ctx, address, path)
	if err != nil {
		return "", fmt.Errorf("ask the daemon at %s: %w", named(address), err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostHealth))
	said := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask the daemon at %s: %w", named(address), err)
	case response.StatusCode == http.StatusServiceUnavailable:
		return "", fmt.Errorf("the daemon at %s says: %s", named(address), said)
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("ask the daemon at %s: it answers %s", named(address), response.Status)
	}
	return said, nil
}

// Gather reads the daemon of this process from its registry.
func Gather(g prometheus.Gatherer, at time.Time) (Daemon, error) {
	all, err := g.Gather()
	families := make(map[string]*dto.MetricFamily, len(all))
	for _, f := range all {
		families[f.GetName()] = f
	}
	return fromMetrics(families, at), err
}

// fromMetrics picks what is told here from all metrics, by their names.
func fromMetrics(families map[string]*dto.MetricFamily, at time.Time) Daemon {
	d := Daemon{At: at, Letters: make(map[string]float64)}
	brokers := make(map[int32]*Broker)
	each := func(name string, f func(m *dto.Metric, value float64)) {
		for _, m := range families["pgamqp_"+name].GetMetric() {
			if value := m.GetGauge().GetValue() + m.GetCounter().GetValue(); isCount(value) { // one of them is there
				f(m, value)
			}
		}
	}
	// ofBroker is each for what has a label broker with the number of one.
	ofBroker := func(name string, f func(b *Broker, m *dto.Metric, value float64)) {
		each(name, func(m *dto.Metric, value float64) {
			id, err := strconv.ParseInt(label(m, "broker"), 10, 32)
			if err != nil {
				return // "unknown": what could not be decoded
			}
			b := brokers[int32(id)]
			if b == nil {
				b = &Broker{ID: int32(id)}
				brokers[b.ID] = b
			}
			f(b, m, value)
		})
	}
	sum := func(name string, field func(*Broker) *float64) {
		ofBroker(name, func(b *Broker, _ *dto.Metric, value float64) { *field(b) += value })
	}
	flag := func(name string, field func(*Broker) *bool) {
		ofBroker(name, func(b *Broker, _ *dto.Metric, value float64) { *field(b) = value == 1 })
	}
	each("build_info", func(m *dto.Metric, _ float64) { d.Version = label(m, "version") })
	slots := make(map[string]*Slot)
	// ofSlot is each for what has a label slot.
	ofSlot := func(name string, f func(s *Slot, m *dto.Metric, value float64)) {
		each(name, func(m *dto.Metric, value float64) {
			s := slots[label(m, "slot")]
			if s == nil {
				s = &Slot{Name: label(m, "slot")}
				slots[s.Name] = s
			}
			f(s, m, value)
		})
	}
	ofSlot("replication_state", func(s *Slot, m *dto.Metric, value float64) {
		if value == 1 {
			s.State = label(m, "state")
		}
	})
	ofSlot("lag_seconds", func(s *Slot, _ *dto.Metric, value float64) {
		s.LagSeconds = value
		d.LagSeconds = max(d.LagSeconds, value)
	})
	each("dead_letter_messages", func(_ *dto.Metric, value float64) { d.DeadLetters = value })
	each("dead_lettered_messages_total", func(m *dto.Metric, value float64) {
		if value > 0 {
			d.Letters[label(m, "reason")] += value
		}
	})
	each("last_heartbeat_timestamp_seconds", func(_ *dto.Metric, value float64) {
		if value > 0 {
			d.Heartbeat = time.Unix(0, int64(value*float64(time.Second)))
		}
	})
	ofSlot("slot_lag_bytes", func(s *Slot, _ *dto.Metric, value float64) { s.Lag = value })
	ofSlot("slot_retained_wal_bytes", func(s *Slot, _ *dto.Metric, value float64) { s.Retained = value })
	ofSlot("slot_safe_wal_bytes", func(s *Slot, _ *dto.Metric, value float64) { s.Safe = &value })
	ofSlot("slot_wal_status", func(s *Slot, m *dto.Metric, value float64) {
		if value == 1 {
			s.Status = label(m, "status")
		}
	})
	each("received_messages_total", func(_ *dto.Metric, value float64) { d.Received += value })
	ofBroker("broker_connected", func(b *Broker, m *dto.Metric, value float64) {
		b.Hosts = append(b.Hosts, Host{label(m, "host"), value == 1})
	})
	flag("broker_blocked", func(b *Broker) *bool { return &b.Blocked })
	flag("broker_detached", func(b *Broker) *bool { return &b.Detached })
	flag("broker_holding", func(b *Broker) *bool { return &b.Holding })
	sum("unconfirmed_messages", func(b *Broker) *float64 { return &b.Unconfirmed })
	sum("unconfirmed_window", func(b *Broker) *float64 { return &b.Window })
	sum("published_messages_total", func(b *Broker) *float64 { return &b.Published })
	sum("confirmed_messages_total", func(b *Broker) *float64 { return &b.Confirmed })
	sum("nacked_messages_total", func(b *Broker) *float64 { return &b.Nacked })
	sum("returned_messages_total", func(b *Broker) *float64 { return &b.Returned })
	sum("dead_lettered_messages_total", func(b *Broker) *float64 { return &b.DeadLettered })
	ofBroker("publish_confirm_seconds", func(b *Broker, m *dto.Metric, _ float64) { b.confirms = histogramOf(m.GetHistogram()) })
	for _, s := range slots {
		d.Slots = append(d.Slots, *s)
	}
	// The names of detached brokers' slots begin with that of the main one.
	slices.SortFunc(d.Slots, func(a, b Slot) int { return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name)) })
	if len(d.Slots) > 0 {
		d.State = d.Slots[0].State
	}
	for _, b := range brokers {
		d.Brokers = append(d.Brokers, *b)
	}
	slices.SortFunc(d.Brokers, func(a, b Broker) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

// isCount tells whether a daemon can have counted or measured a number: no infinite one, which JSON cannot say.
func isCount(n float64) bool { return math.Abs(n) <= 1<<63 }

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
