// Package demo shows pgamqp at work and checks it: it starts private servers,
// installs, runs the daemon, lets pgbench publish to two brokers with commits,
// rollbacks, savepoints and autonomous calls, consumes everything and compares.
//
// What was committed is known independently of pgamqp: each message's id is also
// inserted into a table, in the same transaction. So the table holds exactly what
// must arrive, and PostgreSQL's own commit timestamps tell when.
package demo
