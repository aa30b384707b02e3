// Package publisher owns the connections to the brokers. It takes messages in
// order, hands each to the lane of its broker, and calls done once the message is
// safe: confirmed by the broker, or stored as a dead letter. It promises that no
// other path leads to done, and that a lane publishes in the order in which it was
// given messages. It knows nothing of PostgreSQL.
//
// # States of a lane
//
//	          ┌──────── connection lost: backoff, next host ────────┐
//	          ▼                                                     │
//	──▶ connecting ──▶ connected: opens a channel ──▶ publishing ───┤
//	          ▲              ▲                          │  │  │     │
//	          │              │    nack: settle, backoff │  │  └─ blocked ⇄ unblocked
//	          │              │ refusal: find the culprit│  │
//	          │              └──────────────────────────┘  │
//	          └──── amqp.disconnect, changed definition ───┘
//
// Whenever a channel ends, what has no verdict waits in the window again, in
// order. Sending it again is safe because it carries the same message_id, and right
// because nothing behind it was confirmed to PostgreSQL: at worst a message comes
// twice.
//
// # What a confirm proves
//
// An ack means that every queue to which the message was routed has it, on disk if
// queue and message are durable. A message that no queue takes is acked too, but is
// returned first, because it was published as mandatory. A nack means that a queue
// could not take it. When channel or connection ends, the library resolves all open
// confirms as if nacked; whether the channel is closed tells the difference.
//
// # Goroutines
//
// For each lane: its own (run), which connects, publishes and judges; the confirm
// loop of the current channel; the flusher and the watcher of the current
// connection. A closer lives while a channel or a connection is closed, bounded by
// closeTimeout. Run also reads the definitions.
package publisher
