// Package replication owns the slot: it reads the stream, hands messages to a Sink
// in order, and reports a position to the server only when everything before it is
// safe. It promises that a position is never reported too early; after a failure
// messages may come again, those that were not confirmed. It knows nothing of what
// the Sink does.
//
// # States of a Session
//
//	           ┌───────────── error, backoff ─────────────┐
//	           ▼                                          │
//	──▶ connecting ── checked and started ──▶ streaming ──┤
//	     │   ▲  │                                 │       │
//	     │   │  └── slot in use ──▶ standby       │       │
//	     │   └────────── backoff ─────┘           │       │
//	     │                                        │       │
//	     ├── slot lost ──▶ slot_lost ◀────────────┘       │
//	     └── stop, or an error that stays ──▶ stopped ◀───┘
//
// Every error of the connection ends the stream, even one the server calls an
// ERROR and not FATAL, because it has left streaming then. The next stream has a
// new Tracker. A done func of an old stream reaches its old Tracker, where it is
// harmless and still counts for what is remembered.
//
// # Positions
//
// Three kinds of positions are reported, all exact ends as the server gave them:
// the end of a transaction (Commit.TransactionEndLSN), the LSN of a message outside
// a transaction, and the WAL end of a keepalive that stands behind everything
// received. The server resends a unit if the start of its last record is at or
// beyond the confirmed position; so every smaller value repeats, and one more may
// skip. Streaming starts at 0/0, which means at the slot's confirmed position.
//
// # Goroutines
//
// The owner of the connection (in Run) receives, decodes and reports. The deliverer
// takes messages from the inbox and calls Publish, which may block. When stopping,
// the drainer waits for the Sink while the owner keeps reporting. All end before
// Run returns.
package replication
