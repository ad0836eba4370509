package image

import (
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/layer"
)

// progress hands messages on, one at a time.
type progress struct {
	mu   sync.Mutex
	f    func(Message)
	last map[digest.Digest]layer.Stage
}

func newProgress(f func(Message)) *progress {
	return &progress{f: f, last: map[digest.Digest]layer.Stage{}}
}

func (p *progress) say(id, status string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send(Message{ID: id, Status: status})
}

func (p *progress) send(m Message) {
	if p.f != nil {
		p.f(m)
	}
}

// announce begins the lines of an image's layers, in their order.
func (p *progress) announce(layers []ocispec.Descriptor, exists func(i int) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, l := range layers {
		if _, ok := p.last[l.Digest]; ok {
			continue // the same layer twice
		}
		if exists(i) {
			p.last[l.Digest] = layer.StageExists
			p.send(Message{ID: short(l.Digest), Status: string(layer.StageExists)})
			continue
		}
		p.last[l.Digest] = ""
		p.send(Message{ID: short(l.Digest), Status: "Pulling fs layer"})
	}
}

// layer is a layer.Progress.
func (p *progress) layer(blob digest.Digest, stage layer.Stage, current, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last[blob] == layer.StageExists || p.last[blob] == stage && current == 0 {
		return
	}
	p.last[blob] = stage
	p.send(Message{ID: short(blob), Status: string(stage), Current: current, Total: total})
}

// short is the form in which ids are shown.
func short(d digest.Digest) string {
	h := d.Encoded()
	return h[:min(12, len(h))]
}
