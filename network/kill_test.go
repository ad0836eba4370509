package network

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
)

// victimEnv makes the test binary an engine that is going to be killed; its value is the state folder.
const victimEnv = "SKIFF_NETWORK_TEST_VICTIM"

// victim connects a container, whose only process is a sleep(1) that outlives it, and waits for its end.
func victim(dir string) {
	ctx := context.Background()
	m, err := New(ctx, Config{StateDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	if err := m.Adopt(ctx, nil); err != nil {
		panic(err)
	}
	ep, err := m.Connect(ctx, Request{ContainerID: "aaaa", Ports: network.PortMap{
		network.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified(), HostPort: "8080"}},
	}})
	if err != nil {
		panic(err)
	}
	h := Held{ContainerID: "aaaa"}
	err = m.inner.Inside(ctx, ep.NetNS, func() error {
		cmd := exec.Command("sleep", "60")
		err := cmd.Start()
		h.PID = cmd.Process.Pid
		return err
	})
	if err != nil {
		panic(err)
	}
	ep.NetNS = nil
	h.Endpoint = ep
	p, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(p))
	select {}
}

func TestKilledEngine(t *testing.T) {
	for _, survives := range []bool{false, true} {
		dir := t.TempDir()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), victimEnv+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadBytes('\n')
		var h Held
		if err != nil || json.Unmarshal(line, &h) != nil {
			t.Fatalf("%s %v", line, err)
		}
		time.Sleep(20 * time.Millisecond) // its pool is being filled
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		sleep, err := os.FindProcess(h.PID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sleep.Kill() })
		held := []Held{h}
		if !survives {
			_ = sleep.Kill()
			held = nil
		}
		m := newManager(t, func(c *Config) { c.StateDir = dir; c.PoolMin = 1; c.PoolMax = 1 })
		if err := m.Adopt(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		want := 1 // the new pool's
		if survives {
			want++
		}
		var n int
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			n = 0
			for _, l := range links(t) {
				if m.isOurs(l) {
					n++
				}
			}
			if n == want {
				break
			}
		}
		if n != want {
			t.Errorf("survives %v: %d interfaces, want %d", survives, n, want)
		}
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.PID))
		if survives {
			if err != nil {
				t.Fatal(err)
			}
			machine{t, m.inner, ns}.echo(80)
			if seen, err := (machine{t: t}).dial("tcp", "127.0.0.1:8080"); err != nil {
				t.Errorf("the container that went on: %q %v", seen, err)
			}
			ns.Close()
			_ = sleep.Kill()
		} else if _, err := (machine{t: t}).dial("tcp", "127.0.0.1:8080"); err == nil {
			t.Error("a port of nobody is open")
		}
		if err := m.Destroy(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
