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
	"strconv"
	"strings"
)

// Reservation holds a port until whoever it is meant for is about to bind it.
type Reservation struct {
	Address  string
	listener net.Listener
}

// Release frees the port; more than once is harmless.
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
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(top-width+(start+i)%width)))
		if err == nil {
			return Reservation{Address: l.Addr().String(), listener: l}, nil
		}
	}
	return Reservation{}, fmt.Errorf("no free loopback port between %d and %d", top-width, top)
}
