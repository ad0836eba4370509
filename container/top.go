package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

const (
	defaultPSArgs = "-ef"
	ticks         = 100 // USER_HZ, the unit of /proc/PID/stat; the same on all of Linux's architectures that Go knows
)

// Top implements api.Containers. What `ps -ef` shows is read from /proc; for other arguments the host's ps is run.
func (m *Manager) Top(ctx context.Context, name, psArgs string) (api.TopResponse, error) {
	o, err := m.index.find(name)
	if err != nil {
		return api.TopResponse{}, err
	}
	l := o.handles()
	if l == nil {
		return api.TopResponse{}, errs.New(errs.Conflict, "container %s is not running", o.id)
	}
	pids, err := l.group.Procs()
	if err != nil {
		return api.TopResponse{}, fmt.Errorf("list the processes of container %s: %w", o.id, err)
	}
	if len(pids) == 0 { // without cgroups only the first process is known
		pids = []int{l.pid}
	}
	slices.Sort(pids)
	m.publish(o, events.ActionTop)
	if psArgs == "" || psArgs == defaultPSArgs {
		return readProcesses(pids)
	}
	return hostPS(ctx, psArgs, pids)
}

// hostPS runs ps and keeps the lines of the given processes.
func hostPS(ctx context.Context, args string, pids []int) (api.TopResponse, error) {
	fields := strings.Fields(args)
	for _, f := range fields {
		for spec := range strings.SplitSeq(strings.TrimPrefix(f, "-o"), ",") {
			if k, _, renamed := strings.Cut(spec, "="); renamed && k == "pid" {
				return api.TopResponse{}, errs.New(errs.Invalid, "specifying %q is not allowed", spec)
			}
		}
	}
	path, err := osexec.LookPath("ps")
	if err != nil {
		return api.TopResponse{}, errs.New(errs.NotImplemented, "ps arguments other than %q need the program ps on the host: %w", defaultPSArgs, err)
	}
	cmd := osexec.CommandContext(ctx, path, fields...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if msg, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n"); msg != "" {
			err = errors.New(msg)
		}
		return api.TopResponse{}, errs.New(errs.Invalid, "ps: %w", err)
	}
	return parsePS(string(out), pids)
}

// parsePS reads ps's table. The last column takes the rest of a line.
func parsePS(out string, pids []int) (api.TopResponse, error) {
	lines := strings.Split(out, "\n")
	r := api.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	at := slices.Index(r.Titles, "PID")
	if at < 0 {
		return r, errs.New(errs.Invalid, "Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= at {
			continue
		}
		pid, err := strconv.Atoi(fields[at])
		if err != nil {
			return r, errs.New(errs.Internal, "Unexpected pid '%s': %w", fields[at], err)
		}
		if !slices.Contains(pids, pid) {
			continue
		}
		if n := len(r.Titles); len(fields) > n {
			fields = append(fields[:n-1:n-1], strings.Join(fields[n-1:], " "))
		}
		r.Processes = append(r.Processes, fields)
	}
	return r, nil
}

// readProcesses gives the table of `ps -ef`.
func readProcesses(pids []int) (api.TopResponse, error) {
	r := api.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return r, fmt.Errorf("read the clock: %w", err)
	}
	now := time.Now()
	names := map[uint32]string{}
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil {
			continue // it has just ended
		}
		if _, ok := names[p.uid]; !ok {
			names[p.uid] = userName(p.uid)
		}
		age := time.Duration(boot.Nano()) - p.start
		busy := int64(0)
		if age > 0 {
			busy = int64(100 * p.cpu / age)
		}
		r.Processes = append(r.Processes, []string{
			names[p.uid], strconv.Itoa(pid), p.ppid, strconv.FormatInt(busy, 10),
			startText(now.Add(-age), now), p.tty, cpuText(p.cpu), p.command,
		})
	}
	return r, nil
}

type process struct {
	uid          uint32
	ppid, tty    string
	start        time.Duration // after boot
	cpu          time.Duration
	command      string
	commandShort string
}

// readProcess reads /proc/PID/stat (see proc_pid_stat(5)) and cmdline.
func readProcess(pid int) (process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return process{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return process{}, err
	}
	p, err := parseStat(string(data))
	if err != nil {
		return p, err
	}
	p.uid = st.Uid
	cmdline, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	p.command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	if p.command == "" {
		p.command = "[" + p.commandShort + "]"
	}
	return p, nil
}

// parseStat reads a line of /proc/PID/stat. The command in parentheses may contain anything.
func parseStat(line string) (process, error) {
	open, shut := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || shut < open {
		return process{}, fmt.Errorf("no command in %q", line)
	}
	f := strings.Fields(line[shut+1:]) // from field 3 on
	if len(f) < 20 {
		return process{}, fmt.Errorf("only %d fields in %q", len(f)+2, line)
	}
	num := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64) // the kernel writes nothing else
		return n
	}
	return process{
		ppid: f[1], tty: ttyName(num(7)), commandShort: line[open+1 : shut],
		cpu:   time.Duration(num(14)+num(15)) * (time.Second / ticks),
		start: time.Duration(num(22)) * (time.Second / ticks),
	}, nil
}

// ttyName names a terminal by its device number: majors 136 to 143 are ptys (devices.txt).
func ttyName(dev int64) string {
	major, minor := unix.Major(uint64(dev)), unix.Minor(uint64(dev))
	switch {
	case dev == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa(int(major-136)*256+int(minor))
	case major == 4 && minor < 64:
		return "tty" + strconv.Itoa(int(minor))
	case major == 5 && minor == 1:
		return "console"
	}
	return "?"
}

// startText is ps's STIME: the time of today, else the day, else the year.
func startText(start, now time.Time) string {
	switch {
	case start.Year() != now.Year():
		return start.Format("2006")
	case start.YearDay() != now.YearDay():
		return start.Format("Jan02")
	}
	return start.Format("15:04")
}

// cpuText is ps's TIME: hours, minutes, seconds, with days before them if there are any.
func cpuText(d time.Duration) string {
	s := int64(d / time.Second)
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// userName is the host's name of a user, cut as ps does, or the number.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil {
		return id
	}
	if len(u.Username) > 8 {
		return u.Username[:7] + "+"
	}
	return u.Username
}
