package ports

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// reserve binds a socket to host and returns it, or -1 if the kernel doesn't know the protocol: then nobody else can
// have the port either.
func reserve(proto uint8, host netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(host.Port()), Addr: as4(host.Addr())})
	if host.Addr().Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(host.Port()), Addr: host.Addr().As16()}
	}
	typ := unix.SOCK_STREAM
	if proto == UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		if proto == SCTP && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)) {
			return -1, nil
		}
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	if err := bind(fd, proto, family, sa); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func as4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

func bind(fd int, proto uint8, family int, sa unix.Sockaddr) error {
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	// IPv4 packets are redirected by the firewall; IPv6 ones are served on this very socket.
	if family == unix.AF_INET {
		if err := dropAll(fd); err != nil {
			return err
		}
	}
	if proto == UDP {
		return unix.Bind(fd, sa)
	}
	// Connections in TIME_WAIT, left by a server of the host, are no obstacle.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	return unix.Listen(fd, unix.SOMAXCONN)
}

// dropAll attaches a filter of one instruction: keep no byte of any packet.
func dropAll(fd int) error {
	prog := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &prog[0]})
	if err != nil {
		return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	return nil
}
