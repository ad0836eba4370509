// Package api is the Engine API server: one file for each object of the API, version negotiation, streams.
//
// It speaks versions 1.40 to 1.56 of the Docker Engine API over net/http. A request is matched against a static table of
// routes (route.go, routes.go); its version is negotiated (version.go); the handler decodes it strictly (request.go),
// asks one of the services (services.go, images.go, …: interfaces, so that this package knows no implementation), and
// answers in the form that the request's version had (the files named …_view.go). Endpoints of the API that skiff does
// not have yet are listed too (endpoints.go) and answer 501 with their name; a path that no version knows is 404.
//
// The services' errors carry a class of package errs; errors.go is the one table from class to HTTP status. Streams
// (attach, exec, logs, events, pull) are in hijack.go, websocket.go and stream.go; each ends, and frees everything, when
// its client vanishes.
package api
