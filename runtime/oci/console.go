package oci

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// sendConsole sends a terminal's master over a unix socket, with its name as the data.
func sendConsole(socket string, master *os.File) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	_, _, err = conn.WriteMsgUnix([]byte(master.Name()), unix.UnixRights(int(master.Fd())), nil)
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("send the terminal over %s: %w", socket, err)
	}
	return nil
}

// Terminal joins our own terminal with a process's.
type Terminal struct {
	master *os.File
	state  *term.State
	in     *os.File
	resize chan os.Signal
	output chan struct{}
}

// Attach makes our terminal raw and copies between it and the master until Close.
func (t *Terminal) Attach(master *os.File) error {
	t.master, t.in = master, os.Stdin
	t.resize, t.output = make(chan os.Signal, 1), make(chan struct{})
	if term.IsTerminal(int(t.in.Fd())) {
		state, err := term.MakeRaw(int(t.in.Fd()))
		if err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		t.state = state
		signal.Notify(t.resize, unix.SIGWINCH)
		t.resize <- unix.SIGWINCH
		go func() {
			for range t.resize {
				if ws, err := unix.IoctlGetWinsize(int(t.in.Fd()), unix.TIOCGWINSZ); err == nil {
					_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, ws) // the old size stays
				}
			}
		}()
	}
	go func() { _, _ = io.Copy(master, t.in) }()
	go func() {
		_, _ = io.Copy(os.Stdout, master) // ends with EIO when the last slave is closed
		close(t.output)
	}()
	return nil
}

// Close waits for the rest of the output and gives our terminal back. It does nothing if nothing was attached.
func (t *Terminal) Close() {
	if t.master == nil {
		return
	}
	select {
	case <-t.output:
	case <-time.After(time.Second): // somebody in the container still holds the slave
	}
	signal.Stop(t.resize)
	close(t.resize)
	if t.state != nil {
		_ = term.Restore(int(t.in.Fd()), t.state)
	}
	_ = t.master.Close() // all was copied
}
