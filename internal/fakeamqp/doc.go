// Package fakeamqp is a scripted AMQP 0-9-1 broker for tests.
//
// It speaks the real wire protocol to a real client, and does what a real
// broker will not do on demand: confirm late, in any order or never, return
// without confirming, block, stop reading, close a channel between two
// publishes, fall silent in the middle of a frame. It stores nothing and routes
// nothing: every answer is the test's.
//
// There are two ways to give the answers, and they can be mixed:
//
//   - Script: what the client does arrives as events in one unbounded queue.
//     The test takes them with [Await] (by kind) or [Server.Next] (in order)
//     and calls methods such as [Publish.Ack] or [Conn.Drop].
//   - Handler: [Config.Handler] is asked for a [Verdict] at once, on the
//     connection's reading goroutine. The event is queued all the same.
//
// The server answers by itself only what needs no decision: the handshake,
// heartbeats, channel open and close, confirm.select and declarations. Where
// RabbitMQ refuses, it refuses with the same code and scope: 404 for a missing
// exchange or queue, 501 for a frame that is too large, 540 for a method it
// does not know.
//
// One connection is in one of these states; every arrow is a method of [Conn]
// or something the client does:
//
//	handshake ──▶ open ──Freeze──▶ frozen (bytes stay in the socket) ──Thaw──▶ open
//	                │
//	                ├─Silence──▶ silent: reads on, writes nothing more
//	                ├─Close────▶ closing: drops all frames until close-ok ──▶ closed
//	                └─Drop, Reset, EOF, connection.close by the client ─────▶ closed
//
// TestClientSeesTheSameOfARealBroker compares it with RabbitMQ.
//
// The package must never be part of the daemon; only tests import it.
package fakeamqp
