package metrics

import "github.com/prometheus/client_golang/prometheus"

// ReplicationState is what the daemon does with its slot.
type ReplicationState string

// The states of a replication session.
const (
	StateConnecting ReplicationState = "connecting" // trying to reach PostgreSQL or to start the stream
	StateStreaming  ReplicationState = "streaming"  // receiving changes
	StateStandby    ReplicationState = "standby"    // another daemon streams from the slot; this one waits for it
	StateSlotLost   ReplicationState = "slot_lost"  // the server has given up the slot; a human must decide
	StateStopped    ReplicationState = "stopped"    // shut down
)

// Replication is what the PostgreSQL side of one slot counts.
type Replication struct {
	State  *OneHot[ReplicationState]
	Leader prometheus.Gauge // 1 while this daemon holds the slot

	Received            Received
	ReceivedBytes       prometheus.Counter  // bytes of replication data, before decoding
	TransactionMessages prometheus.Observer // messages of a transaction, at its commit
	Skipped             Skipped
	// DroppedDuplicates counts units that the server sent again and that were confirmed before.
	DroppedDuplicates prometheus.Counter

	Connects      PostgresConnects
	Keepalives    prometheus.Counter
	StatusUpdates StatusUpdates

	Inbox Buffer

	// LagSeconds is the age of the oldest unconfirmed commit, 0 when there is none. The daemon gives it with SetFunc.
	LagSeconds         *Reading
	HeartbeatRoundTrip prometheus.Observer // seconds from writing a heartbeat to its confirmation
	LastHeartbeat      prometheus.Gauge    // Unix time of the last heartbeat that came through

	slot    string
	set     *set
	buffers buffers
}

// Received counts what the stream carried, by kind.
type Received struct {
	Publish    prometheus.Counter // amqp.publish
	Autonomous prometheus.Counter // amqp.autonomous_publish
	Declare    prometheus.Counter // exchanges, queues and bindings to declare
	Control    prometheus.Counter // disconnect, ping, a change of amqp.broker
	Heartbeat  prometheus.Counter
	Row        prometheus.Counter // a change of a table in the publication
	Foreign    prometheus.Counter // pg_logical_emit_message with a prefix that is not ours
}

// Skipped counts what was received and on purpose not delivered, by reason.
type Skipped struct {
	ForeignPrefix prometheus.Counter
	Row           prometheus.Counter
	// OtherStream counts messages that another stream of the daemon delivers: those to a
	// broker that has a slot of its own, and in the stream from such a slot all others.
	OtherStream prometheus.Counter
}

// PostgresConnects counts attempts to start streaming, by result.
type PostgresConnects struct {
	OK       prometheus.Counter
	SlotBusy prometheus.Counter // another daemon holds the slot: normal on a standby
	Error    prometheus.Counter
}

// StatusUpdates counts positions reported to the server, by result.
type StatusUpdates struct{ Sent, Error prometheus.Counter }

// NewReplication declares the metrics of one slot's stream in reg.
func NewReplication(reg prometheus.Registerer, slot string) *Replication {
	s := &set{reg: reg}
	constant := prometheus.Labels{"slot": slot}
	counter := func(name, help string) prometheus.Counter {
		return own(s, prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: name, Help: help, ConstLabels: constant,
		}))
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return own(s, prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: name, Help: help, ConstLabels: constant,
		}, []string{label}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return own(s, prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Name: name, Help: help, ConstLabels: constant,
		}))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return own(s, prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: name, Help: help, ConstLabels: constant, Buckets: buckets,
		}))
	}

	received := counters("received_messages_total", "Messages received from PostgreSQL.", "kind")
	skipped := counters("skipped_messages_total", "Messages received and on purpose not delivered.", "reason")
	connects := counters("postgres_connects_total", "Attempts to start streaming from PostgreSQL.", "result")
	updates := counters("standby_status_updates_total", "Positions reported to PostgreSQL.", "result")
	b := newBuffers(reg)

	return &Replication{
		State: own(s, newOneHot("replication_state", "What the daemon does with the slot: 1 for the current state.",
			"state", constant, StateConnecting, StateStreaming, StateStandby, StateSlotLost, StateStopped)),
		Leader: gauge("leader", "1 while this daemon holds the slot, else 0."),
		Received: Received{
			Publish:    received.WithLabelValues("publish"),
			Autonomous: received.WithLabelValues("autonomous"),
			Declare:    received.WithLabelValues("declare"),
			Control:    received.WithLabelValues("control"),
			Heartbeat:  received.WithLabelValues("heartbeat"),
			Row:        received.WithLabelValues("row"),
			Foreign:    received.WithLabelValues("foreign"),
		},
		ReceivedBytes: counter("received_bytes_total", "Replication data received from PostgreSQL, in bytes."),
		TransactionMessages: histogram("transaction_messages", "Messages in a committed transaction.",
			[]float64{1, 2, 5, 10, 20, 50, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000}),
		Skipped: Skipped{
			ForeignPrefix: skipped.WithLabelValues("foreign_prefix"),
			Row:           skipped.WithLabelValues("row"),
			OtherStream:   skipped.WithLabelValues("other_stream"),
		},
		DroppedDuplicates: counter("dropped_duplicates_total",
			"Transactions and lone messages that PostgreSQL sent again after they had been confirmed, and that were not delivered again."),
		Connects: PostgresConnects{
			OK:       connects.WithLabelValues("ok"),
			SlotBusy: connects.WithLabelValues("slot_busy"),
			Error:    connects.WithLabelValues("error"),
		},
		Keepalives: counter("received_keepalives_total", "Keepalives received from PostgreSQL."),
		StatusUpdates: StatusUpdates{
			Sent:  updates.WithLabelValues("sent"),
			Error: updates.WithLabelValues("error"),
		},
		Inbox: b.with(stageInbox, slot, ""),
		LagSeconds: own(s, newReading("lag_seconds",
			"Age of the oldest commit that is not confirmed yet, in seconds; 0 when there is none.", constant)),
		HeartbeatRoundTrip: histogram("heartbeat_round_trip_seconds",
			"Time from writing a heartbeat in PostgreSQL until it has come through the whole path, in seconds.", secondsBuckets()),
		LastHeartbeat: gauge("last_heartbeat_timestamp_seconds",
			"When the last heartbeat came through, in seconds since 1970; 0 when none has since the start."),
		slot: slot, set: s, buffers: b,
	}
}

// Remove takes the slot's series out of the registry, for a slot that was dropped. The struct must not be used after.
func (r *Replication) Remove() {
	r.set.remove()
	r.buffers.remove(stageInbox, r.slot, "")
}
