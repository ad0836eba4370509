package cli

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstSignals are those that people and programs end a command with; they are taken before the container runs. Go takes
// each signal by two switches of threads, so the others follow when it does: laterSignals.
var (
	firstSignals = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}
	laterSignals = []os.Signal{
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGIO, unix.SIGPWR,
		unix.SIGSYS, unix.SIGTRAP, unix.SIGXCPU, unix.SIGVTALRM,
	}
)

// signalProxy sends the signals that we get to a container.
type signalProxy struct {
	tty   bool
	got   chan os.Signal
	ready chan struct{}
}

// proxySignals begins to take signals. They are held until run is called, or ctx ends.
func (a *App) proxySignals(ctx context.Context, id string, tty bool) *signalProxy {
	p := &signalProxy{tty: tty, got: make(chan os.Signal, 128), ready: make(chan struct{})}
	signal.Notify(p.got, firstSignals...)
	go func() {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return
		}
		for {
			select {
			case s := <-p.got:
				if cl, err := a.client(); err == nil {
					_ = cl.Kill(ctx, id, signalName(s.(syscall.Signal)))
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return p
}

// run says that the container runs.
func (p *signalProxy) run() {
	close(p.ready)
	signal.Notify(p.got, laterSignals...)
	if !p.tty { // with one, the size is what is sent on
		signal.Notify(p.got, unix.SIGWINCH)
	}
}

// stop gives the signals their usual effect again.
func (p *signalProxy) stop() { signal.Stop(p.got) }

func signalName(s syscall.Signal) string { return strings.TrimPrefix(unix.SignalName(s), "SIG") }

// signalNames are the signals offered by the completion.
func signalNames() []string {
	var names []string
	for s := syscall.Signal(1); s < 32; s++ {
		if n := unix.SignalName(s); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// capabilities are the names offered by the completion (capability.h, without CAP_).
func capabilities() []string {
	return strings.Fields("ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE " +
		"DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN " +
		"NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT " +
		"SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM")
}
