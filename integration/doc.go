// Package integration tests the program: the real binary, built with the race detector,
// between real servers. It knows what users know: the command line, the SQL functions, what
// arrives in queues, and /metrics. It must not import the daemon's packages.
//
// One PostgreSQL and one RabbitMQ serve all tests. Each test makes a world: a database and
// a virtual host for each broker of its own, so tests run side by side. A test that breaks
// a server, or needs one with other settings, starts its own.
//
// A usual test:
//
//	w := newWorld(t, worldOptions{})
//	w.queue(1, "orders")
//	w.start()                                   // the daemon; ended and checked with the test
//	w.exec("select amqp.publish(1, '', 'orders', 'first')")
//	got := w.received(1, "orders")              // all that was committed so far
//
// A test of faults runs a load, breaks something, and compares: history reads from a slot
// of its own what was committed, in commit order; compare finds what is lost, was never
// committed, came twice, or came in another order.
//
//	h := w.history()
//	l := w.startLoad(loadOptions{})
//	... break something ...
//	l.stop()
//	got := w.received(1, loadQueue) // first: history sees only what is on disk
//	compare(h.bodies(1), got).wantComplete(t)
//
// A test of a document asks for the blocks that name it (claimed) and runs each (runSQL, commands).
//
// TestChaos compares with everything broken at once, from one seed, and only for `make chaos`: docs/reliability.md.
//
// Nothing sleeps: what takes time is awaited, with a deadline. What the daemon and the servers
// had to say is shown when a test fails. A report of the race detector is a failure.
package integration
