// Package network connects containers: bridges, addresses, ports, firewall, names.
//
// A Manager owns one bridge, one nftables table and a pool of network namespaces that wait for their container with
// interface, address and routes set. What it promises:
//
//   - Connect hands out a namespace; with a warm pool, and without ports, it makes no system call. All ports of a request
//     are published, or none. An address or host port is never given to two.
//   - A namespace is held by descriptors alone: when the last process in it is gone, so is its interface. Release never
//     waits for that; the address comes again when the interface is gone.
//   - Killing the process loses nothing: the table stays as it is until Adopt was told what the running containers hold,
//     then it is made exactly that, and interfaces of nobody are removed. What others do to the table is undone.
//   - Without the right to make a bridge or a table, New succeeds, Isolated works and Connect says why it does not.
//
// The parts know nothing of containers and nothing of each other: rtnl (interfaces, addresses, routes), netns (making
// namespaces, pools), ipam (subnets, addresses), nft (the table), ports (who has which host port), proxy (IPv6 to IPv4),
// names (hosts, resolv.conf). docs/network.md tells what a user sees.
package network
