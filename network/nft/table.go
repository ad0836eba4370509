package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a bridge with the containers of one network.
type Bridge struct {
	Name       string
	Subnet     netip.Prefix
	Masquerade bool // containers reach the outside with the host's address
	ICC        bool // containers may talk to each other freely
}

// Port is a published port: packets for Host go to Container.
type Port struct {
	Proto     uint8          // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Host      netip.AddrPort // IPv4; unspecified address: all of the host's
	Container netip.AddrPort // IPv4
}

type portKey struct {
	proto uint8
	host  netip.AddrPort
}

func (p Port) key() portKey { return portKey{p.Proto, p.Host} }

// Table is skiff's nftables table. It is safe for use by several goroutines; changes are serialised.
type Table struct {
	name string
	log  *slog.Logger

	mu      sync.Mutex
	conn    *nftables.Conn
	ids     map[uint32]bool // netlink port ids of our own sockets
	bridges map[string]Bridge
	ports   map[portKey]netip.AddrPort
	live    bool // the table was written
	closed  bool

	watch *netlink.Conn
	done  chan struct{}
}

// Open prepares a table of the given name; the kernel is changed by the first Sync.
func Open(name string, log *slog.Logger) (*Table, error) {
	t := &Table{name: name, log: log, ids: map[uint32]bool{}, bridges: map[string]Bridge{}, ports: map[portKey]netip.AddrPort{}}
	if err := t.connect(); err != nil {
		return nil, err
	}
	return t, nil
}

// connect opens a new socket. After an error the old one may hold answers that were not read.
func (t *Table) connect() error {
	if t.conn != nil {
		_ = t.conn.CloseLasting()
		t.conn = nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		id, err := portID(c)
		t.ids[id] = true
		return err
	}))
	if err != nil {
		return fmt.Errorf("open an nftables socket: %w", err)
	}
	t.conn = conn
	return nil
}

// portID is a netlink socket's own address, which the kernel puts into the notifications that it causes.
func portID(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var id uint32
	var inner error
	err = raw.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		if nl, ok := sa.(*unix.SockaddrNetlink); ok {
			id = nl.Pid
		}
		inner = err
	})
	return id, errors.Join(err, inner)
}

// Sync replaces everything by the given bridges and ports, in one transaction.
func (t *Table) Sync(bridges []Bridge, ports []Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bridges, t.ports = map[string]Bridge{}, map[portKey]netip.AddrPort{}
	for _, b := range bridges {
		t.bridges[b.Name] = b
	}
	for _, p := range ports {
		t.ports[p.key()] = p.Container
	}
	return t.rebuild()
}

// Publish adds ports.
func (t *Table) Publish(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ports {
		t.ports[p.key()] = p.Container
	}
	err := t.change(ports, true)
	if err != nil {
		for _, p := range ports {
			delete(t.ports, p.key())
		}
	}
	return err
}

// Withdraw removes ports. Ports that are not there are no error.
func (t *Table) Withdraw(ports []Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var known []Port
	for _, p := range ports {
		if t.ports[p.key()] == p.Container {
			delete(t.ports, p.key())
			known = append(known, p)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return t.change(known, false)
}

// change adds or removes the elements of ports, or writes the whole table if that fails: somebody changed it.
func (t *Table) change(ports []Port, add bool) error {
	if t.closed || t.conn == nil {
		return io.ErrClosedPipe
	}
	if !t.live {
		return t.rebuild()
	}
	s := newSchema(t.name)
	anyAddr, oneAddr := elements(ports)
	var err error
	for set, els := range map[*nftables.Set][]nftables.SetElement{s.ports: anyAddr, s.hostPorts: oneAddr} {
		if len(els) == 0 || err != nil {
			continue
		}
		if add {
			err = t.conn.SetAddElements(set, els)
		} else {
			err = t.conn.SetDeleteElements(set, els)
		}
	}
	if err == nil {
		err = t.conn.Flush()
	}
	if err == nil {
		return nil
	}
	t.log.Warn("nftables: a change failed, the table is written anew", "table", t.name, "error", err)
	if err := t.connect(); err != nil {
		return err
	}
	return t.rebuild()
}

// rebuild writes the table from memory, whatever the kernel has.
func (t *Table) rebuild() error {
	if t.closed || t.conn == nil {
		return io.ErrClosedPipe
	}
	s := newSchema(t.name)
	ports := make([]Port, 0, len(t.ports))
	for k, c := range t.ports {
		ports = append(ports, Port{k.proto, k.host, c})
	}
	err := s.write(t.conn, slices.Collect(maps.Values(t.bridges)), ports)
	if err == nil {
		err = t.conn.Flush()
	}
	if err != nil {
		return fmt.Errorf("write nftables table inet %s: %w", t.name, errors.Join(err, t.connect()))
	}
	t.live = true
	return nil
}

// Close stops the watch and leaves the table as it is: containers outlive us.
func (t *Table) Close() error {
	t.mu.Lock()
	t.closed = true
	watch, done := t.watch, t.done
	t.watch = nil
	var err error
	if t.conn != nil {
		err = t.conn.CloseLasting()
		t.conn = nil
	}
	t.mu.Unlock()
	if watch != nil {
		err = errors.Join(err, watch.Close())
		<-done
	}
	return err
}

// Destroy removes the table from the kernel. A missing table is no error.
func Destroy(_ context.Context, name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open an nftables socket: %w", err)
	}
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove nftables table inet %s: %w", name, err)
	}
	return nil
}
