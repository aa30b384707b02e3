// Package snapshot sends the rows that a table has already, between those of its changes.
//
// A table is read in chunks. Each is read with a snapshot of the server's own, and gets a place in
// the stream: a message that is written to the WAL once the chunk was read. There the rows are
// published, but for those that the stream has told newer things of meanwhile. So a row never
// comes after a change that it does not have, and none is missing:
//
//   - A transaction whose changes the stream has delivered before the chunk was begun is waited for
//     until the chunk's snapshot shows it: the stream is often faster than the server shows a
//     transaction to others (failures that come of it are proven in integration).
//   - One that the snapshot does not show, and that lies before the chunk's place, is delivered before
//     it. What it has changed is left out of the chunk. Where its message lacks large values that
//     it did not touch, the row comes with all that is known at its place instead.
//   - One that the snapshot shows is in the rows already. If it lies behind the place, its messages
//     tell of it once more.
//   - A row whose key is changed by an update that lacks large values is read once more: it may have come from a
//     part that is not read yet to one that was. Its key is in memory, and a note of it in amqp.snapshot before the
//     change can be confirmed; if the note outlives the memory, the snapshot begins again.
//
// Whoever meets a place without having its rows, after a crash or as the stream of a detached
// broker, sets the snapshot back to it. Nothing else needs to be remembered: a place is sent
// again until all of its rows are confirmed.
package snapshot
