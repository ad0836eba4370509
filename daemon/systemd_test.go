package daemon

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestActivatedBySystemd plays systemd: it passes a socket, waits for readiness, and finds the socket served by each engine.
func TestActivatedBySystemd(t *testing.T) {
	bin := programs(t)
	dir, err := os.MkdirTemp("", "skd")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()

	r := newRunning(t, bin, dir)
	flags := strings.Join(r.flags(), " ")
	flags = strings.Replace(flags, "unix://"+r.socket(), "fd://", 1)
	r.cmd = exec.Command("sh", "-c", "LISTEN_PID=$$ exec "+bin+"/skiffd "+flags)
	r.cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=skiff.socket", "NOTIFY_SOCKET="+dir+"/n")
	r.cmd.ExtraFiles = []*os.File{socket}
	r.start()

	told := func() string {
		_ = notify.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 4096)
		n, err := notify.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := told(); !strings.HasPrefix(got, "READY=1\nMAINPID=") {
		t.Errorf("told systemd %q", got)
	}
	id := r.info().ID
	if err := syscall.Kill(r.engine(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := r.info().ID; got != id {
		t.Errorf("id %s, before %s", got, id)
	}
	told()
	_ = r.cmd.Process.Signal(syscall.SIGHUP)
	if got := told(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("told systemd %q", got)
	}
	if got := told(); got != "READY=1" {
		t.Errorf("told systemd %q", got)
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if got := told(); got != "STOPPING=1" {
		t.Errorf("told systemd %q", got)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.socket()); err != nil {
		t.Error("systemd's socket was removed:", err)
	}
}
