package network

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkConnect(b *testing.B) {
	for _, c := range []struct {
		name  string
		r     Request
		pause time.Duration
	}{
		{"warm", Request{}, 3 * time.Millisecond},
		{"backtoback", Request{}, 0},
		{"mac", Request{MAC: "02:00:00:00:00:07"}, 3 * time.Millisecond},
		{"port", Request{Ports: portMapOf(b, "0.0.0.0|8080|80/tcp")}, 3 * time.Millisecond},
		{"port46", Request{Ports: portMapOf(b, "|8080|80/tcp")}, 3 * time.Millisecond},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := newManager(b, nil)
			if err := m.Adopt(b.Context(), nil); err != nil {
				b.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
			i := 0
			var connect, release time.Duration
			for b.Loop() {
				c.r.ContainerID = fmt.Sprint("c", i)
				i++
				t := time.Now()
				ep, err := m.Connect(b.Context(), c.r)
				connect += time.Since(t)
				if err != nil {
					b.Fatal(err)
				}
				ep.NetNS.Close()
				t = time.Now()
				if err := m.Release(b.Context(), c.r.ContainerID); err != nil {
					b.Fatal(err)
				}
				release += time.Since(t)
				time.Sleep(c.pause)
			}
			b.ReportMetric(float64(connect.Microseconds())/float64(i), "µs/connect")
			b.ReportMetric(float64(release.Microseconds())/float64(i), "µs/release")
		})
	}
}
