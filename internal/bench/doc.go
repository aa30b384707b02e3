// Package bench measures how fast a pair of servers and pgamqp are together, and against
// what limits them.
//
// Absolute figures say more about the machine than about the program, so every figure stands
// beside the limit it is up against, measured in the same run: the cases of a section take
// turns (A B C, B C A, ...), and a ratio is made of runs of one round. What is measured runs in a
// process of its own, whose CPU time and memory the operating system tells: the real daemon as
// `pgamqp run`, the limits as workers, which are a hidden command of the same program.
//
//   - model.go: what a section is, what comes out; run.go: taking turns
//   - servers.go: private servers, or the user's; process.go: children, CPU, memory
//   - backlog.go, drain.go, read.go, publish.go, latency.go, sql.go: what is measured;
//     sections.go: against what
//   - table.go, plot.go, progress.go: how it is shown
//
// The package must not be part of the daemon.
package bench
