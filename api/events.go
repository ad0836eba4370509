package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
)

// Events is what the API needs of the event bus.
type Events interface {
	// Subscribe delivers the events that match, those of the history since the given time first; the channel is closed at
	// until (zero: never) or when ctx ends.
	Subscribe(ctx context.Context, since, until time.Time, match func(events.Message) bool) <-chan events.Message
}

// eventV51 repeats three fields at the top, as they were before API 1.22, for events of containers and images.
type eventV51 struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func (s *Server) events(c *call) error {
	since, err := c.moment("since")
	if err != nil {
		return err
	}
	until, err := c.moment("until")
	if err != nil {
		return err
	}
	if !since.IsZero() && !until.IsZero() && since.After(until) {
		return errs.New(errs.Invalid, "`since` time (%s) cannot be after `until` time (%s)", c.query("since"), c.query("until"))
	}
	filters, err := c.filters()
	if err != nil {
		return err
	}
	match, err := eventFilter(filters)
	if err != nil {
		return err
	}
	media := mediaJSON
	if c.version >= 52 {
		media = eventsMediaType(c.version, c.Request.Header.Values("Accept"))
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	ch := s.Events.Subscribe(ctx, since, until, match)
	c.Header().Set("Content-Type", media)
	c.WriteHeader(http.StatusOK)
	return c.sendEvents(ch, media)
}

func (c *call) sendEvents(ch <-chan events.Message, media string) error {
	enc := json.NewEncoder(c)
	if err := c.flush(); err != nil {
		return nil // the client left
	}
	for m := range ch {
		if media == mediaJSONSeq {
			if _, err := c.Write([]byte{0x1e}); err != nil {
				return nil // the client left
			}
		}
		var err error
		if c.version < 52 && (m.Type == events.ContainerEventType || m.Type == events.ImageEventType) {
			err = enc.Encode(eventV51{Status: string(m.Action), ID: m.Actor.ID, From: m.Actor.Attributes["image"], Message: m})
		} else {
			err = enc.Encode(m)
		}
		if err != nil || len(ch) == 0 && c.flush() != nil {
			return nil // the client left
		}
	}
	return nil
}

// eventsMediaType picks the form of the stream that the client likes; plain JSON if it names none of ours.
func eventsMediaType(v Version, accept []string) string {
	offers := []string{mediaNDJSON, mediaJSONSeq}
	if v >= 53 {
		offers = []string{mediaJSONLines, mediaNDJSON, mediaJSONSeq}
	}
	for _, header := range accept {
		for part := range strings.SplitSeq(header, ",") {
			media, _, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err == nil && slices.Contains(offers, media) {
				return media
			}
		}
	}
	return mediaJSON
}

// eventFilter makes a predicate of the filters: values of one key are alternatives, different keys must all hold.
func eventFilter(filters map[string][]string) (func(events.Message) bool, error) {
	for key := range filters {
		switch key {
		case "type", "event", "scope", "label", "image":
		case "container", "daemon", "network", "volume", "plugin", "service", "node", "secret", "config", "builder":
		default:
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
	}
	if len(filters) == 0 {
		return nil, nil // everything matches
	}
	return func(m events.Message) bool {
		for key, values := range filters {
			if len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return eventMatches(m, key, v) }) {
				return false
			}
		}
		return true
	}, nil
}

func eventMatches(m events.Message, key, value string) bool {
	switch key {
	case "type":
		return string(m.Type) == value
	case "scope":
		return m.Scope == value
	case "event": // "exec_create" stands for "exec_create: COMMAND", too
		action := string(m.Action)
		return action == value || strings.HasPrefix(action, value+": ")
	case "label":
		name, want, hasValue := strings.Cut(value, "=")
		got, ok := m.Actor.Attributes[name]
		return ok && (!hasValue || got == want)
	case "image":
		id, name := m.Actor.ID, m.Actor.Attributes["name"]
		if m.Type == events.ContainerEventType {
			id, name = "", m.Actor.Attributes["image"]
		} else if m.Type != events.ImageEventType {
			return false
		}
		return id == value || name == value || withoutTag(name) == value || withoutTag(id) == value
	default: // the name of a type: the object's name, its id or the beginning of it
		return string(m.Type) == key && (strings.HasPrefix(m.Actor.ID, value) || m.Actor.Attributes["name"] == value)
	}
}

// withoutTag takes the tag or digest off an image's name.
func withoutTag(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
