package runtime

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

// Exec makes the launch of a further process in a running container. The caller closes the Assembly. It is NotFound when
// the container's process is gone.
func Exec(in ExecInput) (*Assembly, error) {
	spec := &specs.Spec{Process: in.Process, Root: &specs.Root{}, Linux: &specs.Linux{Seccomp: in.Seccomp}}
	o := &opener{
		spec: spec, cgroup: in.Cgroup, pidfd: in.PIDFD, preserved: in.Preserved,
		stdio: [3]*os.File{in.Stdio.In, in.Stdio.Out, in.Stdio.Err},
	}
	a, err := assembleExec(o, in)
	if err != nil {
		o.close()
		return nil, err
	}
	return a, nil
}

func assembleExec(o *opener, in ExecInput) (*Assembly, error) {
	joined, err := Foreign(in.PID)
	if err != nil {
		return nil, err
	}
	root, err := o.open(fmt.Sprintf("/proc/%d/root", in.PID), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, gone(in.PID, err)
	}
	opt := hostOptions(o.spec)
	if joined&unix.CLONE_NEWUSER != 0 {
		opt.Caps = 0
	}
	opt.Keep, opt.Filters = len(in.Preserved), in.Filters
	opt.Stdio, opt.Null = streamOptions(o.stdio)
	o.spec.Process = withHome(o.spec.Process, int(root.Fd()))
	if err := o.lookAtCgroup(&opt); err != nil {
		return nil, err
	}
	// The pid may have been used again since: all that was looked at above is that of the pidfd's process only if it still runs.
	if err := unix.PidfdSendSignal(int(in.PIDFD.Fd()), 0, nil, 0); errors.Is(err, unix.ESRCH) {
		return nil, gone(in.PID, err)
	}
	c, err := compileExec(o.spec, joined, opt)
	if err != nil {
		return nil, err
	}
	return c.assembly(o)
}

func gone(pid int, err error) error {
	return errs.New(errs.NotFound, "the container's process %d is gone: %w", pid, err)
}

// CompileExec turns a process into the launch program that runs it in a container whose namespaces (CLONE_NEW* flags) differ
// from ours in joined. Like Compile it is pure.
func CompileExec(p *specs.Process, filter *specs.LinuxSeccomp, joined uint64, opt CompileOptions) (*launch.Program, error) {
	c, err := compileExec(&specs.Spec{Process: p, Root: &specs.Root{}, Linux: &specs.Linux{Seccomp: filter}}, joined, opt)
	if err != nil {
		return nil, err
	}
	return c.Finish()
}

func compileExec(spec *specs.Spec, joined uint64, opt CompileOptions) (*compiler, error) {
	if spec.Process == nil {
		return nil, errs.New(errs.Invalid, "there is no process to execute")
	}
	c := &compiler{Builder: launch.NewBuilder(), spec: spec, linux: spec.Linux, proc: spec.Process, opt: opt, made: map[string]bool{}}
	if err := c.refuse(); err != nil {
		return nil, err
	}
	c.Keep += opt.Keep
	c.streams()
	c.cgroups()
	c.oomScore(c.proc.OOMScoreAdj)
	c.openLabel()
	target := c.slot("the container's process", func(o *opener) (*os.File, error) { return o.pidfd, nil })
	if joined&unix.CLONE_NEWPID != 0 {
		c.JoinPID = int(target.Value)
	}
	if rest := joined &^ unix.CLONE_NEWPID; rest != 0 {
		c.Do("join the container's namespaces", unix.SYS_SETNS, target, launch.Int(rest))
	}
	if joined&unix.CLONE_NEWUSER != 0 {
		c.Do("become root of the user namespace", unix.SYS_SETRESGID, empty(), empty(), empty())
		c.Do("become root of the user namespace", unix.SYS_SETRESUID, empty(), empty(), empty())
	}
	if err := c.process(); err != nil {
		return nil, err
	}
	return c, nil
}

// Foreign says in which namespaces (CLONE_NEW* flags) a process is that we are not in. It is NotFound if the process is gone.
func Foreign(pid int) (uint64, error) {
	files := map[specs.LinuxNamespaceType]string{specs.MountNamespace: "mnt", specs.NetworkNamespace: "net"}
	var flags uint64
	var mine, theirs unix.Stat_t
	for _, f := range nsFlag {
		name, ok := files[f.kind]
		if !ok {
			name = string(f.kind)
		}
		if err := unix.Stat("/proc/thread-self/ns/"+name, &mine); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue // the kernel has none
			}
			return 0, fmt.Errorf("look at our own namespace: %w", err)
		}
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &theirs); err != nil {
			return 0, gone(pid, err)
		}
		if mine.Ino != theirs.Ino || mine.Dev != theirs.Dev {
			flags |= f.flag
		}
	}
	return flags, nil
}

func isV2(m cgroup.Mount) bool { return m.V2 }
