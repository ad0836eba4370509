package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

// serve starts a container that answers each TCP connection on port 80 with one line.
func serve(t *testing.T, c client, answer string, flags ...string) string {
	t.Helper()
	args := append(append([]string{"run", "-d"}, flags...), "busybox", "sh", "-c",
		"while :; do echo "+answer+" | nc -l -p 80 >/dev/null; done")
	id := c.ok(t, args...)
	t.Cleanup(func() { c.run(t, "", "rm", "-f", id) })
	return id
}

// ask reads the line; it tries again for a while since nc listens anew for each connection.
func ask(addr string) (string, error) {
	var err error
	for range 60 {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.SetDeadline(time.Now().Add(2 * time.Second))
			var line string
			line, err = bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			if err == nil {
				return strings.TrimSpace(line), nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", err
}

func wantAnswer(t *testing.T, addr, want string) {
	t.Helper()
	if got, err := ask(addr); err != nil || got != want {
		t.Errorf("%s answered %q (%v), want %q", addr, got, err, want)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestPublish(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		port := freePort(t)
		id := serve(t, c, "published", "-p", fmt.Sprintf("%d:80", port), "-p", "127.0.0.1::80")
		wantAnswer(t, fmt.Sprintf("127.0.0.1:%d", port), "published")
		gw := c.ok(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", id)
		wantAnswer(t, fmt.Sprintf("%s:%d", gw, port), "published")
		ip := c.ok(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id)
		wantAnswer(t, ip+":80", "published")
		ports := c.ok(t, "ps", "--no-trunc", "--filter", "id="+id, "--format", "{{.Ports}}")
		m := regexp.MustCompile(`127\.0\.0\.1:(\d+)->80/tcp`).FindStringSubmatch(ports)
		if m == nil || !strings.Contains(ports, fmt.Sprintf("0.0.0.0:%d->80/tcp", port)) {
			t.Fatalf("ports: %q", ports)
		}
		wantAnswer(t, "127.0.0.1:"+m[1], "published")
		// from another container: directly, and through the host's published port
		for _, addr := range []string{ip + " 80", fmt.Sprintf("%s %d", gw, port)} {
			got := c.ok(t, "run", "--rm", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do nc -w 2 "+addr+" </dev/null && break; sleep 0.2; done")
			if got != "published" {
				t.Errorf("from a container, %s: %q", addr, got)
			}
		}
		c.fails(t, 125, "port is already allocated (held by container "+c.ok(t, "inspect", "-f", "{{slice .Name 1}}", id)+")", "run", "--rm", "-p", fmt.Sprintf("%d:80", port), "busybox", "true")
		c.ok(t, "rm", "-f", id)
		eventually(t, 3*time.Second, "the port is free", func() bool {
			l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
			if err == nil {
				l.Close()
			}
			return err == nil
		})
	})
}

func TestPortHeldByHost(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		l, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		r := c.run(t, "", "run", "--rm", "-p", fmt.Sprintf("%d:80", port), "busybox", "true")
		if r.code != 125 || !strings.Contains(r.stderr, "address already in use") || !strings.Contains(r.stderr, "e2e.test") {
			t.Errorf("port of this very process: exit %d, %s", r.code, r.stderr)
		}
		if left := c.ok(t, "ps", "-aq", "--filter", "status=running"); left != "" {
			t.Errorf("running: %s", left)
		}
	})
}

// TestFlushedRulesComeBack deletes the daemon's firewall table, as a careless firewall script does.
func TestFlushedRulesComeBack(t *testing.T) {
	d := newDaemon(t)
	c := skiff(d)
	port := freePort(t)
	serve(t, c, "still", "-p", fmt.Sprintf("%d:80", port))
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	wantAnswer(t, addr, "still")
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	ts, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, table := range ts {
		if strings.Contains(table.Name, d.Tag()) {
			conn.DelTable(table)
			ours++
		}
	}
	if err := conn.Flush(); err != nil || ours == 0 {
		t.Fatalf("delete the table: %d found, %v", ours, err)
	}
	time.Sleep(time.Second)
	wantAnswer(t, addr, "still")
}

func TestHostNetwork(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		got := c.ok(t, "run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net")
		host, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if got != host {
			t.Errorf("--network host: %s, the host's is %s", got, host)
		}
		c.fails(t, 125, "conflicting options", "run", "--rm", "--network", "host", "--mac-address", "02:42:ac:11:00:99", "busybox", "true")
	})
}
