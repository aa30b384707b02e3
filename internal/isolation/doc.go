// Package isolation keeps a broker that takes no messages from holding up the others,
// and the server's WAL with them. One slot normally serves all brokers; its position
// can only move behind what all of them have confirmed. So a broker that is stuck gets
// a slot of its own: it is detached. When it has caught up it rejoins.
//
// # States of a broker
//
//	          stuck for a while, others have work: copy the slot
//	──▶ joined ──────────────────────────────────────────────▶ detached ◀─┐
//	      ▲                                                      │        │
//	      │ its own stream has delivered                         │        │ the broker, or
//	      │ all up to the cut, has ended,                 caught │        │ a stream, fails
//	      │ and its slot is dropped                       up: cut▼        │
//	      └──────────────────────────────────────────────── rejoining ────┘
//
// Invariants, each of which keeps a crash between any two steps from losing a message:
//
//   - nothing of a broker is given up by the main stream before its own slot exists; the
//     copy has the main slot's confirmed position, so it keeps all that was not confirmed;
//   - the own slot is dropped only when its stream has confirmed all up to the cut, while
//     the main stream holds, unconfirmed, all that lies behind it;
//   - a slot of its own means that the broker is detached. Each start of the main stream
//     begins with looking for such slots, and nothing else is remembered;
//   - copying and dropping happen only while our main stream reads the main slot, and
//     under a lock that looking for the slots takes, too: a daemon that was replaced,
//     and does not know it yet, changes nothing.
//
// A crash can repeat messages: those that PostgreSQL has not seen confirmed.
package isolation
