// Package nft keeps one nftables table in the kernel equal to what it holds in memory.
//
// The table's chains and rules never change; bridges, subnets and published ports are elements of its sets and maps. A
// change is one transaction. What others do to the table is undone: the package listens to the kernel's notifications and
// writes the whole table again, in one transaction. Other tables are never touched. Only netlink is used, no program.
//
// What the table does (see chains.go):
//
//	raw          nothing with a loopback address comes in from a container
//	publish      the destination of a published port becomes the container's address and port
//	forward      into a bridge: answers, published ports, and other containers of the bridge, nothing else
//	postrouting  what leaves a container's subnet gets the host's address; so does what the host's loopback or a
//	             neighbour sends to a published port, so that the answer finds its way back
package nft
