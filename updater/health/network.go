package health

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// network passes when there is a default route, and a global address of the same family (IPv4 or IPv6). That the route leads somewhere is for a check of the
// machine's own: only its owner knows where it must lead.
func (h Host) network() error {
	v4, err := h.proc("net/route")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	v6, err := h.proc("net/ipv6_route") // not there where IPv6 is switched off
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	addresses := h.Addresses
	if addresses == nil {
		addresses = net.InterfaceAddrs
	}
	all, err := addresses()
	if err != nil {
		return err
	}
	has4, has6 := global(all)
	route4, route6 := defaultRoute(v4), defaultRoute6(v6)
	switch {
	case route4 && has4, route6 && has6:
		return nil
	case !route4 && !route6:
		return errors.New("there is no default route")
	case route4:
		return errors.New("there is a default route for IPv4, but no global address")
	default:
		return errors.New("there is a default route for IPv6, but no global address")
	}
}

func global(addresses []net.Addr) (v4, v6 bool) {
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch ip := p.Addr().Unmap(); {
		case !ip.IsGlobalUnicast():
		case ip.Is4():
			v4 = true
		default:
			v6 = true
		}
	}
	return v4, v6
}

// Flags of routes, from linux/route.h.
const (
	routeUp     = 0x1
	routeReject = 0x200
)

// usable reads a route's flags, which the kernel prints in hexadecimal.
func usable(flags string) bool {
	n, err := strconv.ParseUint(flags, 16, 32)
	return err == nil && n&routeUp != 0 && n&routeReject == 0
}

// defaultRoute reads /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …
func defaultRoute(table string) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 8 && f[1] == "00000000" && f[7] == "00000000" && usable(f[3]) {
			return true
		}
	}
	return false
}

// defaultRoute6 reads /proc/net/ipv6_route: destination, prefix length, source, its prefix length, next hop, metric, refcnt, use, flags, device.
func defaultRoute6(table string) bool {
	zeros := fmt.Sprintf("%032x", 0)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 10 && f[0] == zeros && f[1] == "00" && f[9] != "lo" && usable(f[8]) {
			return true
		}
	}
	return false
}
