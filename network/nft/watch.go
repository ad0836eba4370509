package nft

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Delays between somebody's change and our answer. One `nft -f` may come as several transactions; and somebody who
// changes the table again and again must not keep us busy.
const (
	settle    = 50 * time.Millisecond
	settleMax = 800 * time.Millisecond
)

// Watch starts undoing what others do to the table. It is stopped by Close.
func (t *Table) Watch() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watch != nil || t.closed {
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open a socket for nftables notifications: %w", err)
	}
	_ = c.SetReadBuffer(1 << 20)
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		c.Close()
		return fmt.Errorf("subscribe to nftables notifications: %w", err)
	}
	t.watch, t.done = c, make(chan struct{})
	changed := make(chan struct{}, 1)
	go t.listen(c, changed)
	go t.repair(changed, t.done)
	return nil
}

// listen reports foreign changes until the socket is closed; then it closes changed.
func (t *Table) listen(c *netlink.Conn, changed chan<- struct{}) {
	defer close(changed)
	for {
		msgs, err := c.Receive()
		foreign := err != nil
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // closed; ENOBUFS: some were lost
			return
		}
		for _, m := range msgs {
			foreign = foreign || t.foreign(m)
		}
		if foreign {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
}

// foreign says that a message tells of a change of our table that we did not make.
func (t *Table) foreign(m netlink.Message) bool {
	const nameOfTable = 1 // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || uint16(m.Header.Type)&0xff == unix.NFT_MSG_NEWGEN {
		return false
	}
	if len(m.Data) < 4 || m.Data[0] != unix.NFPROTO_INET {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == nameOfTable {
			return ad.String() == t.name && !t.own(m.Header.PID)
		}
	}
	return false
}

func (t *Table) own(id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[id]
}

// repair writes the table anew after foreign changes.
func (t *Table) repair(changed <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	delay, last := settle, time.Time{}
	for range changed {
		if time.Since(last) < 2*settleMax {
			delay = min(delay*2, settleMax)
		} else {
			delay = settle
		}
		time.Sleep(delay)
		select {
		case <-changed: // came meanwhile, covered by what follows
		default:
		}
		last = time.Now()
		for try := 1; !t.restore(try); try++ {
			time.Sleep(settleMax)
		}
	}
}

// restore writes the table; false: try again.
func (t *Table) restore(try int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !t.live {
		return true
	}
	if err := t.rebuild(); err != nil {
		t.log.Error("nftables: somebody changed our table and it could not be restored", "table", t.name, "try", try, "error", err)
		return false
	}
	t.log.Warn("nftables: somebody changed our table, it was restored", "table", t.name)
	return true
}
