package container

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"skiff/internal/errs"
	"skiff/keeper/logfile"
)

const (
	frameHeader = 8
	logBatch    = 32 << 10
)

// Logs implements api.Containers. Following ends with the container's run; a container that doesn't run is not followed.
func (m *Manager) Logs(ctx context.Context, name string, opt LogOptions) (io.ReadCloser, bool, error) {
	o, err := m.index.find(name)
	if err != nil {
		return nil, false, err
	}
	if o.status().gone() {
		return nil, false, errs.New(errs.Conflict, "can not get logs from container which is dead or marked for removal")
	}
	r, err := m.openLog(ctx, o, opt)
	if err != nil {
		return nil, false, err
	}
	return r, o.def().Config.Tty, nil
}

func (m *Manager) openLog(ctx context.Context, o *object, opt LogOptions) (*logStream, error) {
	d := o.def()
	cfg := logfile.Config(d.Log)
	if !cfg.Enabled() {
		return nil, errs.New(errs.NotImplemented, "configured logging driver does not support reading")
	}
	lo := logfile.Options{Stdout: opt.Stdout, Stderr: opt.Stderr, Since: opt.Since, Until: opt.Until, Tail: opt.Tail}
	if l := o.handles(); l != nil && opt.Follow {
		lo.Follow, lo.Ended = true, l.ended
	}
	r, err := logfile.NewReader(cfg, lo)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return &logStream{ctx: ctx, cancel: cancel, r: r, opt: opt, follow: lo.Follow, raw: d.Config.Tty}, nil
}

// replay writes what was logged to an attached client.
func (m *Manager) replay(ctx context.Context, o *object, opt LogOptions, out io.Writer) error {
	r, err := m.openLog(ctx, o, opt)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(out, r)
	return err
}

// logStream formats a log as it is read: nothing is read ahead of the client.
type logStream struct {
	ctx    context.Context // that of the request, which this is the answer to
	cancel context.CancelFunc
	opt    LogOptions
	follow bool
	raw    bool // no frames

	mu  sync.Mutex // held by Read and the end of Close
	r   *logfile.Reader
	buf []byte
	pos int
	err error
}

// Read implements io.Reader.
func (s *logStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pos == len(s.buf) {
		s.fill()
	}
	if s.pos == len(s.buf) {
		return 0, s.err
	}
	n := copy(p, s.buf[s.pos:])
	s.pos += n
	return n, nil
}

// fill formats the next entries: one if waiting for more might keep it back, else a batch.
func (s *logStream) fill() {
	s.buf, s.pos = s.buf[:0], 0
	for s.err == nil && len(s.buf) < logBatch {
		e, err := s.r.Next(s.ctx)
		if err != nil {
			if s.err = err; errors.Is(err, context.Canceled) {
				s.err = io.EOF
			}
			return
		}
		s.format(e)
		if s.follow {
			return
		}
	}
}

func (s *logStream) format(e *logfile.Entry) {
	start := len(s.buf)
	if !s.raw {
		s.buf = append(s.buf, byte(e.Stream), 0, 0, 0, 0, 0, 0, 0)
	}
	if e.Start && s.opt.Timestamps {
		s.buf = append(e.Time.UTC().AppendFormat(s.buf, timestamp), ' ')
	}
	if e.Start && s.opt.Details {
		s.buf = append(appendAttrs(s.buf, e.Attrs), ' ')
	}
	s.buf = append(s.buf, e.Line...)
	if !s.raw {
		binary.BigEndian.PutUint32(s.buf[start+4:], uint32(len(s.buf)-start-frameHeader))
	}
}

// timestamp is RFC 3339 with all nine digits, so that lines are of one width.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// appendAttrs adds "key=value,…", sorted and escaped as in a URL's query.
func appendAttrs(buf []byte, attrs map[string]string) []byte {
	pairs := make([]string, 0, len(attrs))
	for k, v := range attrs {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(pairs)
	return append(buf, strings.Join(pairs, ",")...)
}

// Close implements io.Closer.
func (s *logStream) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.buf, s.pos = io.EOF, nil, 0
	return s.r.Close()
}

// apiTime is how the API shows points in time; the zero value is Docker's year one.
func apiTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
