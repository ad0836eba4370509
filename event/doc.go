// Package event tells what happened: publish, subscribe, and a bounded history.
//
// A Bus never makes a publisher wait: a subscriber who lets his channel run full is dropped, which closes the channel and
// is logged, so that he can tell a gap from silence. Every subscriber sees the events in the order in which they were
// published, those of the history first. A Bus has no goroutine of its own.
package event
