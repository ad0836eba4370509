// Package e2e drives the built binaries as a user does: skiff and the stock docker client against a skiffd of the test's
// own, as root, on the real kernel.
package e2e
