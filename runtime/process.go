package runtime

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/launch"
	"skiff/runtime/seccomp"
)

// process emits what makes the container's own process out of the child: terminal, limits, rights, execve.
func (c *compiler) process() error {
	if err := c.terminal(); err != nil {
		return err
	}
	if err := c.limits(); err != nil {
		return err
	}
	if _, text := c.execLabel(); text != "" {
		c.Do("label what will be executed "+text, unix.SYS_WRITE, c.label, c.Bytes([]byte(text)), launch.Int(len(text)))
	}
	if c.opt.Gate {
		c.gate()
	}
	if err := c.rights(c.linux.Seccomp); err != nil {
		return err
	}
	return c.execve()
}

// terminal gives the process a session of its own, and its terminal if it has one.
func (c *compiler) terminal() error {
	c.Do("new session", unix.SYS_SETSID)
	if !c.proc.Terminal {
		return nil
	}
	if !c.opt.Stdio[0] {
		return errs.New(errs.Invalid, "a process with a terminal needs the pty's slave as its streams")
	}
	c.Do("make the pty the controlling terminal", unix.SYS_IOCTL, launch.Int(0), launch.Int(unix.TIOCSCTTY), empty())
	if s := c.proc.ConsoleSize; s != nil && s.Height != 0 && s.Width != 0 {
		b := binary.NativeEndian.AppendUint16(nil, uint16(s.Height))
		b = append(binary.NativeEndian.AppendUint16(b, uint16(s.Width)), 0, 0, 0, 0)
		c.Do("set the terminal's size", unix.SYS_IOCTL, launch.Int(0), launch.Int(unix.TIOCSWINSZ), c.Bytes(b))
	}
	return nil
}

// rlimitNr are the resources of setrlimit(2).
var rlimitNr = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// limits are what a process has beside its rights. A limit that can't be raised for want of CAP_SYS_RESOURCE is left alone.
func (c *compiler) limits() error {
	if !c.opt.NoKeyring { // without one of its own the container would share the keeper's. Kernels without keyrings say ENOSYS
		const joinSession = 1 // KEYCTL_JOIN_SESSION_KEYRING
		c.Do("new session keyring", unix.SYS_KEYCTL, launch.Int(joinSession), empty(), empty(), empty(), empty()).OK(unix.ENOSYS, unix.EDQUOT, unix.EPERM)
	}
	seen := map[string]bool{}
	for _, r := range c.proc.Rlimits {
		nr, ok := rlimitNr[r.Type]
		switch {
		case !ok:
			return errs.New(errs.Invalid, "unknown resource limit %q", r.Type)
		case seen[r.Type]:
			return errs.New(errs.Invalid, "resource limit %s is there twice", r.Type)
		case r.Soft > r.Hard:
			return errs.New(errs.Invalid, "resource limit %s: soft limit %d is above the hard limit %d", r.Type, r.Soft, r.Hard)
		}
		seen[r.Type] = true
		c.Do(fmt.Sprintf("limit %s to %d:%d", r.Type, r.Soft, r.Hard), unix.SYS_PRLIMIT64, empty(), launch.Int(nr), c.Words(r.Soft, r.Hard), empty()).OK(unix.EPERM)
	}
	if p := c.linux.Personality; p != nil {
		dom, ok := map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: 8}[p.Domain]
		if !ok || len(p.Flags) > 0 {
			return errs.New(errs.Invalid, "unknown personality %q %v", p.Domain, p.Flags)
		}
		c.Do("personality "+string(p.Domain), unix.SYS_PERSONALITY, launch.Int(dom))
	}
	if err := c.ioPriority(); err != nil {
		return err
	}
	return c.scheduler()
}

func (c *compiler) ioPriority() error {
	p := c.proc.IOPriority
	if p == nil {
		return nil
	}
	class, ok := map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[p.Class]
	if !ok || p.Priority < 0 || p.Priority > 7 {
		return errs.New(errs.Invalid, "unknown I/O priority %s %d", p.Class, p.Priority)
	}
	c.Do("I/O priority", unix.SYS_IOPRIO_SET, launch.Int(1), empty(), launch.Int(class<<13|p.Priority))
	return nil
}

// scheduler sets what struct sched_attr holds.
func (c *compiler) scheduler() error {
	s := c.proc.Scheduler
	if s == nil {
		return nil
	}
	policy, ok := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}[s.Policy]
	if !ok {
		return errs.New(errs.Invalid, "unknown scheduling policy %q", s.Policy)
	}
	known := map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
		specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64,
	}
	var flags uint64
	for _, f := range s.Flags {
		bit, ok := known[f]
		if !ok {
			return errs.New(errs.Invalid, "unknown scheduling flag %q", f)
		}
		flags |= bit
	}
	attr := c.Words(48|uint64(policy)<<32, flags, uint64(uint32(s.Nice))|uint64(uint32(s.Priority))<<32, s.Runtime, s.Deadline, s.Period)
	c.Do("scheduling policy "+string(s.Policy), unix.SYS_SCHED_SETATTR, empty(), attr, empty())
	return nil
}

// openLabel opens the file for the security label of what will be executed. It is done early: the host's /proc is the only one
// that is surely genuine.
func (c *compiler) openLabel() {
	if file, _ := c.execLabel(); file != "" {
		_, c.label = c.Open("open "+file, unix.SYS_OPENAT, cwd(), c.Str(file), launch.Int(unix.O_WRONLY|unix.O_CLOEXEC), empty())
	}
}

// execLabel is the file and what to write into it. A profile that the kernel can't enforce is passed over, as Docker does.
func (c *compiler) execLabel() (file, text string) {
	switch {
	case c.opt.AppArmor && c.proc.ApparmorProfile != "":
		return "/proc/thread-self/attr/apparmor/exec", "exec " + c.proc.ApparmorProfile
	case c.opt.SELinux && c.proc.SelinuxLabel != "":
		return "/proc/thread-self/attr/exec", c.proc.SelinuxLabel
	}
	return "", ""
}

// rights drops what the process may not have, in an order in which each step is still allowed: the filter is the last
// but one, since later calls must pass it, and the final capabilities come after it, since loading a filter without
// no_new_privs needs CAP_SYS_ADMIN.
func (c *compiler) rights(profile *specs.LinuxSeccomp) error {
	caps := c.capabilities()
	c.owner()
	// Everything that is not the process's own is closed before its working directory and program are looked up, so
	// that no path leads through our descriptors.
	c.Do("close all other descriptors", unix.SYS_CLOSE_RANGE, launch.Int(c.Keep+1), launch.Int(^uint32(0)), empty())
	c.chdir(unix.EACCES) // as root
	for _, n := range caps.dropped {
		c.Do("drop "+capNames[n]+" from the bounding set", unix.SYS_PRCTL, launch.Int(unix.PR_CAPBSET_DROP), launch.Int(n), empty(), empty(), empty())
	}
	c.identity()
	nnp := c.proc.NoNewPrivileges
	if nnp {
		c.Do("no new privileges", unix.SYS_PRCTL, launch.Int(unix.PR_SET_NO_NEW_PRIVS), launch.Int(1), empty(), empty(), empty())
	}
	if profile != nil && !nnp && c.proc.User.UID != 0 {
		c.capset("keep the right to load the filter", caps.available, caps.available, caps.inheritable)
	}
	if err := c.filter(profile); err != nil {
		return err
	}
	c.capset("capabilities", caps.effective, caps.permitted, caps.inheritable)
	for _, n := range caps.ambient {
		c.Do("ambient "+capNames[n], unix.SYS_PRCTL, launch.Int(unix.PR_CAP_AMBIENT), launch.Int(unix.PR_CAP_AMBIENT_RAISE), launch.Int(n), empty(), empty())
	}
	return nil
}

// owner gives pipes and terminals to the user, so that it can open /dev/stdout again.
func (c *compiler) owner() {
	if c.proc.User.UID == 0 {
		return
	}
	for i := range 3 {
		if c.opt.Stdio[i] && !c.opt.Null[i] {
			c.Do("give the stream to the user", unix.SYS_FCHOWN, launch.Int(i), launch.Int(c.proc.User.UID), launch.Int(int64(-1))).
				OK(unix.EPERM, unix.EROFS, unix.EINVAL, unix.EACCES)
		}
	}
}

func (c *compiler) chdir(fine ...unix.Errno) {
	dir := c.proc.Cwd
	if dir == "" {
		dir = "/"
	}
	op := c.Do(fmt.Sprintf("chdir to cwd (%q) set in config.json failed", dir), unix.SYS_CHDIR, c.Str(dir))
	if c.proc.User.UID != 0 {
		op.OK(fine...)
	}
}

// identity becomes the user. The permitted capabilities survive until the final capset.
func (c *compiler) identity() {
	u := c.proc.User
	if u.UID != 0 {
		c.Do("keep capabilities", unix.SYS_PRCTL, launch.Int(unix.PR_SET_KEEPCAPS), launch.Int(1), empty(), empty(), empty())
	}
	var gids []byte
	for _, g := range u.AdditionalGids {
		gids = binary.NativeEndian.AppendUint32(gids, g)
	}
	c.Do("additional groups", unix.SYS_SETGROUPS, launch.Int(len(u.AdditionalGids)), c.Bytes(append(gids, 0, 0, 0, 0)))
	c.Do(fmt.Sprintf("become group %d", u.GID), unix.SYS_SETRESGID, launch.Int(u.GID), launch.Int(u.GID), launch.Int(u.GID))
	c.Do(fmt.Sprintf("become user %d", u.UID), unix.SYS_SETRESUID, launch.Int(u.UID), launch.Int(u.UID), launch.Int(u.UID))
	if u.UID != 0 {
		c.Do("keep capabilities no longer", unix.SYS_PRCTL, launch.Int(unix.PR_SET_KEEPCAPS), empty(), empty(), empty(), empty())
		c.chdir(unix.EACCES) // root may be shut out of a folder that the user can enter (NFS), or the other way round
	}
	mask := uint32(0o022)
	if u.Umask != nil {
		mask = *u.Umask
	}
	c.Do("umask", unix.SYS_UMASK, launch.Int(mask))
}

// filter loads the seccomp filter.
func (c *compiler) filter(profile *specs.LinuxSeccomp) error {
	if profile == nil {
		return nil
	}
	assemble := seccomp.Assemble
	if c.opt.Filters != nil {
		assemble = c.opt.Filters.Assemble
	}
	f, err := assemble(profile)
	if err != nil {
		return fmt.Errorf("assemble the seccomp profile: %w", err)
	}
	code := c.Bytes(f.Bytes())
	prog := c.Words(uint64(len(f.Insns)), 0) // struct sock_fprog: length, pointer
	c.Point(prog, 1, code)
	const setModeFilter = 1 // SECCOMP_SET_MODE_FILTER
	c.Do("load the seccomp filter", unix.SYS_SECCOMP, launch.Int(setModeFilter), launch.Int(f.Flags), prog)
	return nil
}

// execve ends the program. A name without slash is looked for in the process's PATH.
func (c *compiler) execve() error {
	p := c.proc
	if len(p.Args) == 0 {
		return errs.New(errs.Invalid, "the process has no arguments")
	}
	for _, s := range append(append([]string{p.Cwd}, p.Args...), p.Env...) {
		if strings.IndexByte(s, 0) >= 0 {
			return errs.New(errs.Invalid, "argument or environment %q contains a NUL", s)
		}
	}
	e := &c.Exec
	e.Name = p.Args[0]
	for _, file := range c.candidates() {
		e.Paths = append(e.Paths, uint32(c.Str(file).Value))
	}
	e.Search = !strings.Contains(e.Name, "/")
	e.Argv, e.Envp = c.Table(p.Args), c.Table(p.Env)
	return nil
}

func (c *compiler) candidates() []string {
	name := c.proc.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	if name == "" {
		return nil
	}
	search := ""
	for _, e := range c.proc.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for dir := range strings.SplitSeq(search, ":") {
		if search == "" || len(out) == 1024 {
			break
		}
		if dir == "" {
			dir = "."
		}
		out = append(out, path.Join(dir, name))
	}
	return out
}

// gate makes the child wait for a byte, with its errors told elsewhere from now on. Nobody's death ends it any more.
func (c *compiler) gate() {
	errors := c.slot("errors after the gate", func(o *opener) (*os.File, error) { return o.gate.Errors, nil })
	wait := c.slot("gate", func(o *opener) (*os.File, error) { return o.gate.Wait, nil })
	c.Do("outlive the creator", unix.SYS_PRCTL, launch.Int(unix.PR_SET_PDEATHSIG), empty(), empty(), empty(), empty())
	c.Do("tell errors at the gate", unix.SYS_DUP3, errors, launch.Int(c.Keep), launch.Int(unix.O_CLOEXEC))
	// All other descriptors go now, ours and the creator's: somebody may wait for the end of a pipe. (EINVAL: it is there already.)
	c.Do("keep the gate", unix.SYS_DUP3, wait, launch.Int(c.Keep+1), launch.Int(unix.O_CLOEXEC)).OK(unix.EINVAL)
	c.Do("close all but the gate", unix.SYS_CLOSE_RANGE, launch.Int(c.Keep+2), launch.Int(^uint32(0)), empty())
	c.Do("wait at the gate", unix.SYS_READ, launch.Int(c.Keep+1), c.Bytes(make([]byte, 8)), launch.Int(1))
}

// pause tells the parent and waits for a byte.
func (c *compiler) pause(name string, which func(*opener) *Pause) {
	tell := c.slot(name, func(o *opener) (*os.File, error) { return which(o).Tell, nil })
	wait := c.slot(name, func(o *opener) (*os.File, error) { return which(o).Wait, nil })
	c.Do(name+": tell", unix.SYS_WRITE, tell, c.Bytes([]byte{'p'}), launch.Int(1))
	c.Do(name+": wait", unix.SYS_READ, wait, c.Bytes(make([]byte, 8)), launch.Int(1))
}
