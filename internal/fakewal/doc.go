// Package fakewal is a scripted walsender for tests.
//
// It speaks the PostgreSQL wire protocol to a real client on a replication
// connection, and does what a real server will not do on demand: an error in
// mid-stream that leaves the connection open, silence, half a frame, frames in
// any order and with any content, a crash between two frames. It decodes no
// WAL: the test pushes what the stream is to carry.
//
// What the client does arrives as events in one unbounded queue, so that a
// client is never held up by a test that does not look. The test takes them
// with [Await] (by kind) or [Server.Next] (in order), and answers with methods
// of [Conn] and [Stream]. Start-up, IDENTIFY_SYSTEM, SHOW, TIMELINE_HISTORY and
// START_REPLICATION are answered without the test, unless its functions in
// [Config] say otherwise.
//
// [Log] invents WAL with positions as a real server gives them, and knows which
// of it a server sends again after a restart.
//
// One connection, where every arrow is a method here or something the client does:
//
//	start-up ──▶ idle ──START_REPLICATION──▶ streaming
//	              ▲                              │
//	              ├──CopyDone by the client──────┤
//	              ├──Fail with ERROR─────────────┤   (later status messages are dropped)
//	              │                              │
//	              └─ Terminate, Drop, Reset, Shutdown, Fail with FATAL ──▶ closed
//
// In every state Freeze stops reading, Silence stops writing.
//
// TestClientSeesTheSameOfARealServer compares it with PostgreSQL. The package must never be
// part of the daemon; only tests import it.
package fakewal
