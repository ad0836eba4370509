package container

import (
	"strings"
	"sync"

	"skiff/internal/errs"
)

// index finds containers and execs. Its lock is held for look-ups only.
type index struct {
	mu      *sync.RWMutex
	objects map[string]*object
	names   map[string]string // name → id, also of containers that are being created
	images  map[string]string // id of a container that is being created → id of its image
	execs   map[string]*exec
}

func newIndex() index {
	return index{
		mu: &sync.RWMutex{}, objects: map[string]*object{}, names: map[string]string{},
		images: map[string]string{}, execs: map[string]*exec{},
	}
}

// reserve takes a name, or a random one if it is empty, for a container that is being created.
func (x *index) reserve(name, id, image string) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for attempt := 0; name == ""; attempt++ {
		if n := randomName(attempt); x.names[n] == "" {
			name = n
		} else if attempt == 6 {
			name = shortID(id)
		}
	}
	if holder := x.names[name]; holder != "" {
		return "", nameConflict(name, holder)
	}
	x.names[name] = id
	x.images[id] = image
	return name, nil
}

func nameConflict(name, holder string) error {
	return errs.New(errs.Conflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
}

// release gives a reserved name back.
func (x *index) release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.images, id)
	if x.names[name] == id {
		delete(x.names, name)
	}
}

// add makes a container visible; its name is reserved already, or taken now.
func (x *index) add(o *object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.objects[o.id] = o
	x.names[o.def().Name] = o.id
	delete(x.images, o.id)
}

// remove makes a container invisible and its name free.
func (x *index) remove(o *object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.objects, o.id)
	if name := o.def().Name; x.names[name] == o.id {
		delete(x.names, name)
	}
}

// rename takes the new name; give back the one that is not used with drop.
func (x *index) rename(id, to string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if holder := x.names[to]; holder != "" {
		return nameConflict(to, holder)
	}
	x.names[to] = id
	return nil
}

func (x *index) get(id string) *object {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.objects[id]
}

// creating is a container that is being created from the image.
func (x *index) creating(image string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for id, i := range x.images {
		if i == image {
			return id
		}
	}
	return ""
}

func (x *index) all() []*object {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]*object, 0, len(x.objects))
	for _, o := range x.objects {
		all = append(all, o)
	}
	return all
}

// find looks a container up by its id, its name, or a beginning of its id that no other has.
func (x *index) find(name string) (*object, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if o := x.objects[name]; o != nil {
		return o, nil
	}
	if o := x.objects[x.names[strings.TrimPrefix(name, "/")]]; o != nil {
		return o, nil
	}
	var found *object
	for id, o := range x.objects {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, errs.New(errs.Invalid, "multiple IDs found with provided prefix: %s", name)
		}
		found = o
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "No such container: %s", name)
	}
	return found, nil
}

func (x *index) addExec(e *exec) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.execs[e.id] = e
}

func (x *index) removeExecs(ids []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		delete(x.execs, id)
	}
}

// findExec looks an exec up by its id or a beginning of it.
func (x *index) findExec(id string) (*exec, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e := x.execs[id]; e != nil {
		return e, nil
	}
	var found []*exec
	for full, e := range x.execs {
		if id != "" && strings.HasPrefix(full, id) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return nil, errs.New(errs.NotFound, "No such exec instance: %s", id)
	}
	return found[0], nil
}
