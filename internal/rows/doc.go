// Package rows turns changes of rows into messages: which routes a change takes, what its
// routing key is, and how its values are written. What comes out is the content that
// amqp.publish would have written into the WAL, so that everything behind it (lanes,
// verdicts, dead letters, redelivery) knows one kind of message only.
//
// The text of a value depends on settings of the session that streams; see Settings.
package rows
