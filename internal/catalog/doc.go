// Package catalog is the daemon's and the command line's view of schema amqp and of what
// belongs to it in the server: the publication, the slot, the privileges.
//
// Everything here goes over an ordinary connection, one statement or one short
// transaction at a time; a daemon should not keep such a connection open while it has
// nothing to ask, because a smart shutdown of the server waits for it.
//
// What an operator can put right comes as a [ProblemsError], which lists every mistake at
// once, each with the command that fixes it.
package catalog
