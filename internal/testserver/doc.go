// Package testserver runs private PostgreSQL, RabbitMQ and Prometheus servers for
// tests and for the demo command.
//
// Every server listens on 127.0.0.1 only, on ports that are picked at start and are
// never the standard ones, and keeps its files in a temporary folder of its own. So any
// number of servers run side by side, next to whatever the machine runs already.
//
// No server outlives the process that started it, even when that process is killed with
// SIGKILL: the kernel signals each server when its parent ends (see spawn.go). What such
// a death leaves behind is a folder, and each folder names its owner, so the first server
// that a later process starts removes the folders of dead owners (see folder.go).
//
// As root the servers run as user postgres, or nobody when there is no such user, because
// PostgreSQL refuses to run as root. As any other user they run as that user.
//
// Missing programs are an error that says to run `make setup`; nothing is ever skipped.
//
// PGAMQP_TEST_POSTGRES and PGAMQP_TEST_RABBITMQ name the versions of servers that do not ask for
// one, so that one suite can be run against each. A RabbitMQ that is newer than the machine
// allows runs in a folder of its own by chroot, see installation.go.
//
// The package keeps one goroutine for the life of the process, spawnLoop. A test that
// looks for leaked goroutines passes it to goleak:
//
//	goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop")
package testserver
