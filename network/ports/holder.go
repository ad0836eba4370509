package ports

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder names the process that has a socket bound in the way of host: "nginx, pid 123".
func holder(proto uint8, host netip.AddrPort) (string, bool) {
	inodes := map[string]bool{}
	for _, v := range []string{"", "6"} {
		f, err := os.Open("/proc/self/net/" + Name(proto) + v)
		if err != nil {
			continue
		}
		for _, s := range parseSockets(f) {
			a := s.local.Addr().Unmap()
			if s.local.Port() == host.Port() && s.bound && (a == host.Addr() || a.IsUnspecified() || host.Addr().IsUnspecified()) {
				inodes["socket:["+s.inode+"]"] = true
			}
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return "", false
	}
	return owner(inodes)
}

// owner finds a process that has one of the sockets open.
func owner(links map[string]bool) (string, bool) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return "", false
	}
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			l, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil || !links[l] {
				continue
			}
			comm, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
			return fmt.Sprintf("%s, pid %s", strings.TrimSpace(string(comm)), p.Name()), true
		}
	}
	return "", false
}

type socket struct {
	local netip.AddrPort
	bound bool // it listens, or is not connected
	inode string
}

// parseSockets reads a table as /proc/net/tcp, tcp6, udp or udp6 (see proc_net(5)).
func parseSockets(r io.Reader) []socket {
	var all []socket
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 10 {
			continue
		}
		local, ok := parseAddr(f[1])
		if !ok {
			continue
		}
		const listen, closed = "0A", "07" // states of a TCP server and of an unconnected UDP socket
		all = append(all, socket{local, f[3] == listen || f[3] == closed, f[9]})
	}
	return all
}

// parseAddr reads hexadecimal address:port; the address is in words of four bytes in the machine's order.
func parseAddr(s string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for w := range slices.Chunk(b, 4) {
			slices.Reverse(w)
		}
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a, uint16(n)), ok
}
