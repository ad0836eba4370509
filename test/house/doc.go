// Package house holds the rules of the source tree as tests: who may import whom, what each program links, and what every
// package must say of itself.
package house
