// Package api is the Engine API server: one file for each object of the API, version negotiation, streams.
package api
