package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestChoose(t *testing.T) {
	p := netip.MustParsePrefix
	small := []Pool{{p("10.0.0.0/24"), 26}, {p("10.9.0.0/16"), 24}}
	for _, c := range []struct {
		name  string
		pools []Pool
		used  []netip.Prefix
		want  string
	}{
		{"first", DefaultPools(), nil, "172.17.0.0/16"},
		{"docker is here", DefaultPools(), []netip.Prefix{p("172.17.0.1/16"), p("0.0.0.0/0"), {}}, "172.18.0.0/16"},
		{"a company's net", DefaultPools(), []netip.Prefix{p("172.16.0.0/12")}, "192.168.0.0/20"},
		{"and a home", DefaultPools(), []netip.Prefix{p("172.16.0.0/12"), p("192.168.1.0/24")}, "192.168.16.0/20"},
		{"all", DefaultPools(), []netip.Prefix{p("172.16.0.0/12"), p("192.168.0.0/16")}, ""},
		{"small", small, []netip.Prefix{p("10.0.0.64/32")}, "10.0.0.0/26"},
		{"small, second", small, []netip.Prefix{p("10.0.0.1/32")}, "10.0.0.64/26"},
		{"small, next pool", small, []netip.Prefix{p("10.0.0.0/8"), {}}[1:], "10.0.0.0/26"},
	} {
		got, err := Choose(c.pools, c.used)
		if c.want == "" {
			if !errors.Is(err, ErrNoSubnet) {
				t.Errorf("%s: %v, %v", c.name, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, bad := range []Pool{{p("10.0.0.1/8"), 24}, {p("10.0.0.0/24"), 16}, {p("fd00::/8"), 64}, {p("10.0.0.0/8"), 31}, {}} {
		if bad.Validate() == nil {
			t.Errorf("%v is valid", bad)
		}
	}
}

func TestSpaceLimits(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		subnet, within string
		gateway        string
		n              int
		first          string
	}{
		{"10.0.0.0/30", "", "10.0.0.1", 1, "10.0.0.2"},
		{"10.0.0.0/24", "", "10.0.0.1", 253, "10.0.0.2"},
		{"10.0.0.0/24", "10.0.0.128/25", "10.0.0.1", 127, "10.0.0.128"},
		{"10.0.0.0/16", "10.0.7.0/24", "10.0.7.0", 255, "10.0.7.1"},
		{"10.0.0.0/16", "10.0.7.7/32", "10.0.0.1", 1, "10.0.7.7"},
	} {
		var within netip.Prefix
		if c.within != "" {
			within = p(c.within)
		}
		s, err := NewSpace(p(c.subnet), within, netip.MustParseAddr(c.gateway))
		if err != nil {
			t.Fatal(err)
		}
		n, first := 0, ""
		for {
			a, err := s.Next()
			if errors.Is(err, ErrNoAddress) {
				break
			}
			if n++; n == 1 {
				first = a.String()
			}
		}
		if n != c.n || first != c.first {
			t.Errorf("%+v: %d addresses from %s", c, n, first)
		}
	}
	for _, c := range [][2]string{{"10.0.0.0/31", "10.0.0.0/31"}, {"10.0.0.0/24", "10.0.1.0/25"}, {"10.0.0.0/24", "10.0.0.0/16"}, {"fd00::/64", "fd00::/64"}} {
		if _, err := NewSpace(p(c[0]), p(c[1]), netip.Addr{}); err == nil {
			t.Errorf("%v: no error", c)
		}
	}
}

// A Space never gives an address twice, gives all of them, and gives the one that was released first again last.
func TestSpaceLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 30).Draw(t, "bits")
		subnet := netip.PrefixFrom(netip.MustParseAddr("10.1.0.0"), bits)
		s, err := NewSpace(subnet, netip.Prefix{}, subnet.Addr().Next())
		if err != nil {
			t.Fatal(err)
		}
		room := 1<<(32-bits) - 3
		held := map[netip.Addr]bool{}
		var order []netip.Addr
		t.Repeat(map[string]func(*rapid.T){
			"next": func(t *rapid.T) {
				a, err := s.Next()
				if (err != nil) != (len(held) == room) {
					t.Fatalf("%v with %d of %d held", err, len(held), room)
				}
				if err == nil {
					if held[a] || !subnet.Contains(a) || a == subnet.Addr() || a == subnet.Addr().Next() {
						t.Fatalf("%s", a)
					}
					held[a] = true
					order = append(order, a)
				}
			},
			"release": func(t *rapid.T) {
				if len(order) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(order)-1).Draw(t, "i")
				s.Release(order[i])
				s.Release(order[i])
				delete(held, order[i])
				order = append(order[:i], order[i+1:]...)
			},
			"": func(t *rapid.T) {
				if s.InUse() != uint64(len(held))+1 {
					t.Fatalf("%d in use", s.InUse())
				}
			},
		})
	})
}

func TestRoundRobin(t *testing.T) {
	s, err := NewSpace(netip.MustParsePrefix("10.0.0.0/24"), netip.Prefix{}, netip.MustParseAddr("10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := s.Next()
	s.Release(first)
	for range 252 {
		a, err := s.Next()
		if err != nil || a == first {
			t.Fatalf("%s %v", a, err)
		}
		s.Release(a)
	}
	if a, _ := s.Next(); a != first {
		t.Errorf("after a round: %s", a)
	}
	if !s.Claim(netip.MustParseAddr("10.0.0.77")) || s.Claim(netip.MustParseAddr("10.0.0.77")) || !s.Claim(netip.MustParseAddr("10.9.0.77")) {
		t.Error("Claim")
	}
}
