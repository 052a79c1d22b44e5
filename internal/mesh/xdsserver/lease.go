package xdsserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// ErrOrderDead says that an order's lease was missed, or that it was removed or refused: it is never sent again.
var ErrOrderDead = errors.New("order is dead")

// lease is an order to one node and how far it got. Guarded by Server.mu.
//
//  1. dead never becomes false.
//  2. The body is sent at most once, on one stream; sent is set before the send.
//  3. heard is the last moment at which the client's own lease was certainly (re)started, on our clock.
type lease struct {
	order   xds.Order
	version string
	sent    bool
	heard   time.Time
	on      *stream // that has confirmed it or was sent it; another stream must name it first
	dead    bool
	told    *stream // that was told to drop it
}

// alive says whether the lease holds at now, and else why not.
func (l *lease) alive(now time.Time) (bool, string) {
	switch {
	case l.dead:
		return false, "it is dead"
	case !now.Before(l.order.Until):
		return false, "it was not renewed in time"
	case l.sent && now.Sub(l.heard) >= l.order.TTL:
		return false, "no heartbeat reached the client in time"
	}
	return true, ""
}

// beat is how often a heartbeat is sent.
func (l *lease) beat() time.Duration { return max(l.order.TTL/3, time.Millisecond) }

// PutOrder sends an order to a node, now or as soon as it connects. Putting the same order again only moves its
// Until. It returns ErrOrderDead if the order was lost, refused or removed before, whatever its content is now.
func (s *Server) PutOrder(node api.NodeID, o xds.Order) error {
	if o.Name == "" || o.Body == nil || o.TTL <= 0 || o.TypeURL != o.Body.GetTypeUrl() {
		return api.Errorf(api.Invalid, "order "+o.Name, "an order needs a name, a body of its type and a lease")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if l := s.books[node][o.Name]; l != nil && !s.reusable(l, o) {
		return s.prolong(node, l, o, now)
	}
	if !now.Before(o.Until) {
		return fmt.Errorf("put order %s to %s: %w", o.Name, node, ErrOrderDead)
	}
	if s.books[node] == nil {
		s.books[node] = map[string]*lease{}
	}
	s.books[node][o.Name] = &lease{order: o, version: o.Version(), sent: o.Heard, heard: now}
	s.pokeNode(node)
	return nil
}

// reusable says whether the name of a dead order may be used for another: names of runtime layers are used in
// turn, names of our own orders never.
func (s *Server) reusable(l *lease, o xds.Order) bool {
	return l.dead && l.version != o.Version() && !slices.Contains(xds.OrderTypes(), o.TypeURL)
}

func (s *Server) prolong(node api.NodeID, l *lease, o xds.Order, now time.Time) error {
	if ok, why := l.alive(now); !ok {
		return fmt.Errorf("put order %s to %s: %w: %s", o.Name, node, ErrOrderDead, why)
	}
	if l.version != o.Version() {
		return api.Errorf(api.Conflict, "order "+o.Name, "node %s has it with another content", node)
	}
	l.order.Until = o.Until
	s.pokeNode(node)
	return nil
}

// Renew moves the end of an order's lease. It returns ErrOrderDead if the lease has ended already.
func (s *Server) Renew(node api.NodeID, name string, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.books[node][name]
	if l == nil {
		return api.Errorf(api.NotFound, "order "+name, "node %s has no such order", node)
	}
	if ok, why := l.alive(time.Now()); !ok {
		return fmt.Errorf("renew order %s of %s: %w: %s", name, node, ErrOrderDead, why)
	}
	l.order.Until = until
	s.pokeNode(node)
	return nil
}

// RemoveOrder ends an order: the node is told to drop it, and it is never sent again. Removing twice is harmless.
func (s *Server) RemoveOrder(node api.NodeID, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.books[node][name]; l != nil {
		l.dead = true
		s.pokeNode(node)
	}
}

func (s *Server) pokeNode(node api.NodeID) {
	if st := s.streams[node]; st != nil {
		st.poke()
	}
}

// orderSend is one thing to send about an order.
type orderSend struct {
	lease     *lease
	order     xds.Order // as it was when this was decided
	version   string
	heartbeat bool
	drop      bool
}

// orderWork is what a stream must do about its orders now.
type orderWork struct {
	sends []orderSend
	lost  map[string]string // name -> reason
	next  time.Time         // when to look again; zero = when poked
}

// orders decides what to send at this moment, and marks it as sent. has says whether the client told at the start
// of this stream that it has this version of an order; listens whether it asked for a type.
func (s *Server) orders(st *stream, listens func(xds.Order) bool, has func(o xds.Order, version string) bool) orderWork {
	s.mu.Lock()
	defer s.mu.Unlock()
	work := orderWork{lost: map[string]string{}}
	if s.streams[st.node.ID] != st {
		return work
	}
	now := time.Now()
	for _, name := range sortedNames(s.books[st.node.ID]) {
		l := s.books[st.node.ID][name]
		if !listens(l.order) {
			continue
		}
		known := has(l.order, l.version)
		if ok, why := l.alive(now); !ok || (l.on != st && l.sent && !known) {
			if ok {
				why = "the client no longer has it"
			}
			work.bury(st, l, known, why)
			continue
		}
		work.keep(st, l, known, now)
	}
	return work
}

// bury ends a lease, and tells a client that may still hold the order to drop it.
func (w *orderWork) bury(st *stream, l *lease, known bool, why string) {
	if !l.dead {
		l.dead = true
		w.lost[l.order.Name] = why
	}
	if (known || l.on == st) && l.told != st {
		l.told = st
		w.sends = append(w.sends, orderSend{lease: l, order: l.order, version: l.version, drop: true})
	}
}

// keep sends what is due of a live order: its body once, else a heartbeat. A client that came back with the order
// gets a heartbeat at once, and never the body: it may be about to expire there.
func (w *orderWork) keep(st *stream, l *lease, known bool, now time.Time) {
	send := orderSend{lease: l, order: l.order, version: l.version, heartbeat: l.sent || known}
	if l.on != st || now.Sub(l.heard) >= l.beat() {
		l.sent, l.on, l.heard = true, st, now
		w.sends = append(w.sends, send)
	}
	w.next = earlier(w.next, l.heard.Add(l.beat()))
	w.next = earlier(w.next, l.order.Until)
}

// kill marks orders that a client refused, and returns those that were alive.
func (s *Server) kill(node api.NodeID, names []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var killed []string
	for _, name := range names {
		if l := s.books[node][name]; l != nil && !l.dead {
			l.dead = true
			killed = append(killed, name)
		}
	}
	return killed
}

// earlier is the earlier of two moments, where zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

func sortedNames(m map[string]*lease) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

// stillAlive is asked immediately before a send.
func (s *Server) stillAlive(l *lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !l.dead && time.Now().Before(l.order.Until)
}
