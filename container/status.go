package container

import (
	"fmt"
	"time"

	api "github.com/moby/moby/api/types/container"

	"skiff/network"
)

// status is where a container is in its life. Values are never changed: a transition makes a new one, and readers keep
// the old one as long as they like.
type status struct {
	Phase api.ContainerState

	PID       int    // of the first process, in the host's pid namespace; 0 if it doesn't run
	StartTime uint64 // clock ticks after boot, see keeper.Process

	ExitCode  int
	Error     string // why it could not be started, or what became of it
	Failed    bool   // the last start failed
	OOMKilled bool

	StartedAt  time.Time // zero: never started
	FinishedAt time.Time // zero: never ended

	// Endpoint is the interface of a running container, NetNS nil.
	Endpoint *network.Endpoint
}

// phaseGone is the end: the container was removed. The API never shows it.
const phaseGone api.ContainerState = "gone"

// change is a step in a container's life.
type change string

const (
	changeStart   change = "start"
	changeFail    change = "fail to start"
	changeExit    change = "exit"
	changePause   change = "pause"
	changeUnpause change = "unpause"
	changeRemove  change = "remove"
	changeVanish  change = "vanish" // the removal is complete
)

// transitions are all legal steps. Nothing leads to restarting yet: that is for restart policies. Nothing leads to dead: a
// removal that can't be recorded changes nothing, and what it leaves otherwise is removed later.
var transitions = map[api.ContainerState]map[change]api.ContainerState{
	api.StateCreated:  {changeStart: api.StateRunning, changeFail: api.StateCreated, changeRemove: api.StateRemoving},
	api.StateExited:   {changeStart: api.StateRunning, changeFail: api.StateExited, changeRemove: api.StateRemoving},
	api.StateRunning:  {changeExit: api.StateExited, changePause: api.StatePaused},
	api.StatePaused:   {changeExit: api.StateExited, changeUnpause: api.StateRunning},
	api.StateRemoving: {changeVanish: phaseGone},
}

// illegalChange is a step that the phase does not allow. It means that a check before it is missing.
type illegalChange struct {
	phase  api.ContainerState
	change change
}

func (e illegalChange) Error() string {
	return fmt.Sprintf("a container that is %s can't %s", e.phase, e.change)
}

// after is the status after a step; edit fills in what belongs to it.
func (s status) after(c change, edit func(*status)) (*status, error) {
	phase, ok := transitions[s.Phase][c]
	if !ok {
		return nil, illegalChange{s.Phase, c}
	}
	s.Phase = phase
	if edit != nil {
		edit(&s)
	}
	return &s, nil
}

// alive says that the first process exists.
func (s *status) alive() bool { return s.Phase == api.StateRunning || s.Phase == api.StatePaused }

// gone says that the container can't be used any more.
func (s *status) gone() bool {
	return s.Phase == api.StateRemoving || s.Phase == phaseGone
}
