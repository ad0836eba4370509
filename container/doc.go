// Package container is the container: its configuration, states, streams, logs and further processes.
package container
