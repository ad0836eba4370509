package api

import (
	"sort"
	"strings"
)

// handler serves one endpoint. An error that it returns before it wrote anything becomes the answer.
type handler func(c *call) error

// route is one endpoint: a method and a path with at most one variable, {name}, which may contain slashes.
type route struct {
	method  string
	pattern string
	prefix  string // before {name}
	suffix  string // after {name}
	serve   handler
}

// table finds routes without regular expressions: first by the whole path, then among the few routes that share its
// first segment, the longest suffix first.
type table struct {
	exact map[string][]*route
	named map[string][]*route
}

func newTable() *table {
	return &table{exact: map[string][]*route{}, named: map[string][]*route{}}
}

// add registers a handler for "METHOD /path"; the first registration of an endpoint wins.
func (t *table) add(endpoint string, h handler) {
	method, pattern, _ := strings.Cut(endpoint, " ")
	r := &route{method: method, pattern: pattern, serve: h}
	before, after, isNamed := strings.Cut(pattern, "{name}")
	m, key := t.exact, pattern
	if isNamed {
		r.prefix, r.suffix = before, after
		m, key = t.named, firstSegment(pattern)
	}
	for _, other := range m[key] {
		if other.method == method && other.pattern == pattern {
			return
		}
	}
	m[key] = append(m[key], r)
	sort.SliceStable(m[key], func(i, j int) bool { return len(m[key][i].suffix) > len(m[key][j].suffix) })
}

// find gives the route of a request and the value of its {name}; nil if there is none.
func (t *table) find(method, path string) (*route, string) {
	for _, r := range t.exact[path] {
		if r.method == method {
			return r, ""
		}
	}
	for _, r := range t.named[firstSegment(path)] {
		if r.method != method || len(path) <= len(r.prefix)+len(r.suffix) {
			continue
		}
		if strings.HasPrefix(path, r.prefix) && strings.HasSuffix(path, r.suffix) {
			return r, path[len(r.prefix) : len(path)-len(r.suffix)]
		}
	}
	return nil, ""
}

// firstSegment of "/containers/x/json" is "containers".
func firstSegment(path string) string {
	if path == "" {
		return ""
	}
	s := path[1:]
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}
