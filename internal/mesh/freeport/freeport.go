// Package freeport finds loopback ports that stay free: outside of the range that the kernel gives to outgoing connections.
//
// A port of that range, found by binding port 0, may be the local port of somebody's connection a moment later, and then
// the process that it was meant for cannot start.
//
// Units: none. Errors: Reserve fails when no port is left. Concurrency: safe; a reservation is one listener.
package freeport

import (
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Reservation holds a port. While it is reachable no other Reserve on this host gives the port to anybody, also not between
// its release and the moment at which its owner has bound it.
type Reservation struct {
	Address  string
	listener net.Listener
	claim    net.Listener // on Linux: an abstract socket named after the port, which leaves no file
}

// Release frees the port for whoever it is meant for; more than once is harmless.
func (r Reservation) Release() {
	if r.listener != nil {
		_ = r.listener.Close() // closed twice is what "harmless" means
	}
}

const width = 12_000

// Reserve holds a free loopback port. Callers with other seeds (a directory, say) begin to look elsewhere.
func Reserve(seed string) (Reservation, error) {
	top := 32_768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if low, err := strconv.Atoi(strings.Fields(string(b))[0]); err == nil && low > 10_000+width {
			top = low
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed)) // a hash does not fail
	start := int(h.Sum32() % width)
	for i := range width {
		port := strconv.Itoa(top - width + (start+i)%width)
		claim, free := claimPort(port)
		if !free {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return Reservation{Address: l.Addr().String(), listener: l, claim: claim}, nil
		}
		if claim != nil {
			_ = claim.Close() // the port is another program's
		}
	}
	return Reservation{}, fmt.Errorf("no free loopback port between %d and %d", top-width, top)
}

// claimPort makes the claim on a port; free is false if another process has made it.
func claimPort(port string) (claim net.Listener, free bool) {
	if runtime.GOOS != "linux" {
		return nil, true
	}
	claim, err := net.Listen("unix", "@livefire/port/"+port)
	return claim, err == nil
}
