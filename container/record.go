package container

import (
	"time"

	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/db"
	"skiff/keeper"
	"skiff/network"
)

// definition is what a container is. It is written at create and rename; values are never changed.
type definition struct {
	ID      string
	Name    string // without a slash
	Created time.Time

	Image    digest.Digest // the image's id
	Manifest *ocispec.Descriptor
	Chain    digest.Digest
	Platform string // operating system

	Config     *api.Config
	HostConfig *api.HostConfig
	Networking *apinetwork.NetworkingConfig `json:",omitempty"`
	Log        keeper.LogConfig
}

// command is what the container runs.
func (d *definition) command() []string {
	return append(append([]string{}, d.Config.Entrypoint...), d.Config.Cmd...)
}

// lasting is the part of a status that outlives the machine.
type lasting struct {
	Phase      api.ContainerState
	ExitCode   int       `json:",omitempty"`
	Error      string    `json:",omitempty"`
	Failed     bool      `json:",omitempty"`
	OOMKilled  bool      `json:",omitempty"`
	StartedAt  time.Time `json:",omitzero"`
	FinishedAt time.Time `json:",omitzero"`
}

// run is what has to be known about a running container after the daemon died, beside what the keeper and the kernel
// know. It is written before the process is started, and gone when the container is.
type run struct {
	Endpoint *network.Endpoint `json:",omitempty"`
	Paused   bool              `json:",omitempty"`
}

// execRecord is an exec that was started.
type execRecord struct {
	Container string
	Request   api.ExecCreateRequest
	ExitCode  *int `json:",omitempty"`
}

// store keeps the records. A container that is removed when it ends (--rm) lives in the run-time database alone, which
// costs no fsync and forgets it with the boot: a power cut removes it too.
type store struct {
	durable, volatile books
}

// books are the buckets of one database.
type books struct {
	db    *db.DB
	defs  db.Bucket[*definition]
	stats db.Bucket[lasting]
	runs  db.Bucket[run]
	execs db.Bucket[execRecord]
}

func newBooks(d *db.DB) books {
	return books{
		db:    d,
		defs:  db.In[*definition](d, "containers"),
		stats: db.In[lasting](d, "states"),
		runs:  db.In[run](d, "runs"),
		execs: db.In[execRecord](d, "execs"),
	}
}

func (s *store) of(d *definition) books {
	if d.HostConfig.AutoRemove {
		return s.volatile
	}
	return s.durable
}

// define records a new or renamed container; it is durable on return (but see store).
func (s *store) define(d *definition) error {
	b := db.Batch{NeedsRoom: true}
	books := s.of(d)
	books.defs.Put(&b, d.ID, d)
	return books.db.Commit(&b, db.Durable)
}

// state records where a container is. A power cut shortly after may bring back the one before.
func (s *store) state(d *definition, st *status) error {
	var b db.Batch
	books := s.of(d)
	books.stats.Put(&b, d.ID, lasting{
		Phase: st.Phase, ExitCode: st.ExitCode, Error: st.Error, Failed: st.Failed, OOMKilled: st.OOMKilled,
		StartedAt: st.StartedAt, FinishedAt: st.FinishedAt,
	})
	return books.db.Commit(&b, db.Relaxed)
}

// forget removes all records of a container, and is durable on return.
func (s *store) forget(d *definition) error {
	var b db.Batch
	books := s.of(d)
	books.defs.Delete(&b, d.ID)
	books.stats.Delete(&b, d.ID)
	return books.db.Commit(&b, db.Durable)
}

// starting records what a container is about to hold; ended drops it, and the execs of that run.
func (s *store) starting(id string, r run) error {
	var b db.Batch
	s.volatile.runs.Put(&b, id, r)
	return s.volatile.db.Commit(&b, db.Relaxed)
}

func (s *store) ended(id string, execs []string) error {
	var b db.Batch
	s.volatile.runs.Delete(&b, id)
	for _, e := range execs {
		s.volatile.execs.Delete(&b, e)
	}
	return s.volatile.db.Commit(&b, db.Relaxed)
}

func (s *store) exec(id string, e execRecord) error {
	var b db.Batch
	s.volatile.execs.Put(&b, id, e)
	return s.volatile.db.Commit(&b, db.Relaxed)
}

func (s *store) dropExec(id string) error {
	var b db.Batch
	s.volatile.execs.Delete(&b, id)
	return s.volatile.db.Commit(&b, db.Relaxed)
}
