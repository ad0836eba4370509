package daemon

import (
	"context"
	"time"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
)

// removeGroups removes the group that containers' groups were made in. None of them may have processes.
func removeGroups(host cgroup.Host, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	g, err := host.Open(path)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.Remove(ctx)
}
