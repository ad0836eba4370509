package network

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// state is what survives restarts, as <StateDir>/network.json.
type state struct {
	Networks  map[string]identity // by name: bridge, host, none
	Gateway   netip.Prefix        // of the default bridge: its address and subnet
	Bridge    string              // the bridge that we made, "" if it was there before
	Cursor    uint64              // no address behind this one was handed out recently; see ipam.Space
	IPForward string              `json:",omitempty"` // value of net.ipv4.ip_forward before we changed it
}

type identity struct {
	ID      string // 64 hexadecimal digits
	Created time.Time
}

func (c Config) statePath() string { return filepath.Join(c.StateDir, "network.json") }

// loadState reads the state, and completes it where it is new.
func loadState(c Config) (state, error) {
	var s state
	p, err := os.ReadFile(c.statePath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return s, fmt.Errorf("read the networks' state: %w", err)
	default:
		if err := json.Unmarshal(p, &s); err != nil {
			return s, fmt.Errorf("read the networks' state %s: %w", c.statePath(), err)
		}
	}
	fresh := false
	for _, n := range []string{"bridge", "host", "none"} {
		if _, ok := s.Networks[n]; !ok {
			if s.Networks == nil {
				s.Networks = map[string]identity{}
			}
			s.Networks[n] = identity{randomHex(32), time.Now().UTC()}
			fresh = true
		}
	}
	if fresh {
		return s, s.save(c, true)
	}
	return s, nil
}

// save writes the state: whole or not at all. What is not durable may be older after a power cut.
func (s state) save(c Config, durable bool) error {
	p, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write the networks' state: %w", err)
	}
	f, err := os.CreateTemp(c.StateDir, "network.json.*")
	if err != nil {
		return fmt.Errorf("write the networks' state: %w", err)
	}
	_, err = f.Write(append(p, '\n'))
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.statePath())
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write the networks' state: %w", err)
	}
	return nil
}

// randomHex gives n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
