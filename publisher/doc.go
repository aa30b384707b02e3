// Package publisher owns the connections to the brokers. It takes messages in
// order, hands each to the lane of its broker, and calls done once the message is
// safe: confirmed by the broker, stored as a dead letter, or dropped because the
// broker's policy says so. It promises that no other path leads to done, and that
// a lane publishes in the order in which it was given messages. It knows nothing of
// PostgreSQL.
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
// A message that the broker will not take gets its verdict by the broker's policy. If
// that is to hold it, it stays in the window: the channel settles as behind a nack,
// and the lane tries it again, alone, before anything behind it.
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
