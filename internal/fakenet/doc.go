// Package fakenet is what the scripted servers of the tests share: a queue of
// events that a test waits for, and a reading side that can be shut. It knows
// no protocol, and only the fake servers import it.
package fakenet
