package cli

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// proxySignals sends the signals that we get to the container. They are held until ready is closed.
func (a *App) proxySignals(ctx context.Context, ready <-chan struct{}, id string, tty bool) (stop func()) {
	list := []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGIO, unix.SIGPWR, unix.SIGSYS, unix.SIGTRAP, unix.SIGXCPU, unix.SIGVTALRM,
	}
	if !tty {
		list = append(list, unix.SIGWINCH)
	}
	got := make(chan os.Signal, 128)
	signal.Notify(got, list...)
	go func() {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
		for {
			select {
			case s := <-got:
				if cl, err := a.client(); err == nil {
					_ = cl.Kill(ctx, id, signalName(s.(syscall.Signal)))
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { signal.Stop(got) }
}

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
