// Package status reads what a running daemon says of itself: its metrics, which are also what Prometheus scrapes, so
// that a person and a graph never see different figures.
package status
