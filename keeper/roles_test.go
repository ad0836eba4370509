package keeper_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper"
)

// writerMain is a container's process: it writes numbered lines to both streams, some in pieces, and exits with a code.
//
//	writer LINES MICROSECONDS CODE
func writerMain(args []string) int {
	n, _ := strconv.Atoi(args[0])
	pause, _ := strconv.Atoi(args[1])
	code, _ := strconv.Atoi(args[2])
	for i := range n {
		line := fmt.Sprintf("line %d\n", i)
		if i%7 == 3 {
			os.Stdout.WriteString(line[:4])
			line = line[4:]
		}
		if _, err := os.Stdout.WriteString(line); err != nil {
			return 99
		}
		if i%5 == 0 {
			if _, err := fmt.Fprintf(os.Stderr, "line %d\n", i/5); err != nil {
				return 98
			}
		}
		if pause > 0 && i%10 == 0 {
			time.Sleep(time.Duration(pause) * time.Microsecond)
		}
	}
	return code
}

// engineMain is an engine: it launches one writer in its life and those of its successors, notes ends, and answers on a socket that it
// keeps in the stash. SIGTERM ends it.
//
//	engine DIR LINES MICROSECONDS CODE
func engineMain(args []string) int {
	dir := args[0]
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	ctx := context.Background()
	c, err := keeper.Connect(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		return 1
	}
	note(dir, "pids", strconv.Itoa(os.Getpid()))
	if err := engineRun(ctx, c, dir, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		return 1
	}
	for {
		select {
		case e := <-c.Exits():
			note(dir, "exits", fmt.Sprintf("%s %d", e.ID, e.Code))
		case <-term:
			return 0
		case <-c.Done():
			return 1
		}
	}
}

// note appends a line to a file.
func note(dir, name, line string) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		fmt.Fprintln(f, line)
		f.Close()
	}
}

func engineRun(ctx context.Context, c *keeper.Client, dir string, args []string) error {
	stash, err := c.Stashed(ctx)
	if err != nil {
		return err
	}
	var l *net.UnixListener
	if fs := stash["api"]; len(fs) == 1 {
		fl, err := net.FileListener(fs[0])
		if err != nil {
			return err
		}
		l = fl.(*net.UnixListener)
	} else {
		sock := filepath.Join(dir, "sock")
		os.Remove(sock)
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: sock}); err != nil {
			return err
		}
		f, err := l.File()
		if err != nil {
			return err
		}
		if err := c.Stash(ctx, "api", []*os.File{f}); err != nil {
			return err
		}
	}
	l.SetUnlinkOnClose(false)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "pong")
			conn.Close()
		}
	}()
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.ID == "w" {
			if p.Exited == nil && (p.Stdout == nil || p.PIDFD == nil) {
				note(dir, "errors", fmt.Sprintf("%+v", p))
			}
			return nil
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "exits")); err == nil {
		return nil
	}
	return engineLaunch(ctx, c, dir, args)
}

func engineLaunch(ctx context.Context, c *keeper.Client, dir string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	prog, err := build(append([]string{exe, "writer"}, args...)...)
	if err != nil {
		return err
	}
	inR, inW, err := keeper.InputPipe()
	if err != nil {
		return err
	}
	outR, outW, err := keeper.OutputPipe()
	if err != nil {
		return err
	}
	errR, errW, err := keeper.OutputPipe()
	if err != nil {
		return err
	}
	p, err := c.Launch(ctx, keeper.LaunchRequest{
		ID: "w", Program: prog, Files: files(inR, outW, errW), Stdin: inW, Stdout: outR, Stderr: errR,
		Log: keeper.LogConfig{Driver: "json-file", Path: filepath.Join(dir, "log"), MaxSize: 300 << 10, MaxFiles: 500, Compress: true},
	})
	for _, f := range []io.Closer{inR, outW, errW, inW, outR, errR} {
		f.Close()
	}
	if err == nil {
		note(dir, "launched", strconv.Itoa(p.PID))
	}
	return err
}
