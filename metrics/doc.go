// Package metrics holds every metric of the daemon: its name, its help text, its labels and its buckets.
//
// There is one struct for each component ([Replication], [Publisher] with a [Broker] for each destination, [Slot]),
// made from a [prometheus.Registerer]. The component changes its fields; nobody else spells a name. Names and label
// values are an interface that alert rules and dashboards depend on: testdata/names.golden lists them all.
//
// Labels. What belongs to the PostgreSQL side carries slot, what belongs to a destination carries broker (the
// broker_id of amqp.broker). Queues exist on both sides, so their metrics have both labels, one of them empty, which
// is the same to Prometheus as absent. All values come from the configuration or from a fixed list, but for exchange
// and host: a [Broker] gives at most [MaxExchanges] exchanges a series of their own and counts the rest as "other".
//
// Calling a constructor twice with the same registerer gives the same series again, so a component that was stopped
// and made anew goes on counting. Every method may be called from any goroutine.
//
// The package queries nothing, logs nothing and starts no goroutine. Metrics that need the time (lag, blocked
// seconds) are computed when they are read.
package metrics
