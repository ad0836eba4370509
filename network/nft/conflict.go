package nft

import (
	"fmt"

	"github.com/google/nftables"
)

// ForwardDrops names the chains of others ("ip filter FORWARD") that drop forwarded IPv4 packets unless a rule of theirs
// accepts them. What our table accepts, they can still drop: nftables asks every chain of a hook.
func (t *Table) ForwardDrops() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open an nftables socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var all []string
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}[c.Table.Family]
		if family == "" || family == "inet" && c.Table.Name == t.name {
			continue
		}
		all = append(all, family+" "+c.Table.Name+" "+c.Name)
	}
	return all, nil
}
