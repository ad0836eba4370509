package network

import (
	"context"
	"os"
)

// What package container asks for (container/deps.go), repeated here since it imports this package.
var _ interface {
	Connect(ctx context.Context, r Request) (Endpoint, error)
	Isolated(ctx context.Context, containerID string, sysctls map[string]string) (*os.File, error)
	Release(ctx context.Context, containerID string) error
	Adopt(ctx context.Context, held []Held) error
	Hosts(cfg DNSConfig, ep *Endpoint) ([]byte, error)
	ResolvConf(cfg DNSConfig, ep *Endpoint) ([]byte, error)
} = (*Manager)(nil)
