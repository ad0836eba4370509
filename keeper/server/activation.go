package server

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StashSystemd begins the names under which sockets of systemd are stashed; the socket's name follows.
const StashSystemd = "systemd "

// takeActivation takes the sockets that systemd passed to this process (sd_listen_fds(3)), by the names for the stash, and
// removes them from the environment: the engine finds them in the stash, and so does each engine after it.
func takeActivation() map[string][]int {
	const firstFD = 3
	pid, n, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	count, err := strconv.Atoi(n)
	if err != nil || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	name := strings.Split(names, ":")
	stash := map[string][]int{}
	for i := range count {
		unix.CloseOnExec(firstFD + i)
		key := StashSystemd + "unknown" // as sd_listen_fds_with_names(3)
		if i < len(name) && name[i] != "" {
			key = StashSystemd + name[i]
		}
		stash[key] = append(stash[key], firstFD+i)
	}
	return stash
}
