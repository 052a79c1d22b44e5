// Package balance picks where a request goes: the site by share and reflex, then the endpoint by two choices.
//
// A Latch lives as long as one version of a service in the table. Sites keep their share while they have an endpoint
// that may be used; once traffic has left a site by reflex it stays away, until the table says something new (a new
// Latch) or the site in use has no endpoint left. Without reflex the shares of the table stand, whatever fails: only
// the server may move them.
//
// Units: shares are route.Weight.
// Errors: none; an index of -1 means that there is nothing to pick.
// Concurrency: a Latch belongs to one goroutine at a time; its owner locks. The functions are pure.
// Sources: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing"; Envoy's priority levels, of which the
// automatic return is left out on purpose.
package balance

import (
	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Site is what the choice of a site depends on.
type Site struct {
	Name     api.SiteID
	Share    route.Weight
	Priority int
	Excluded bool
	Usable   bool // has an endpoint that may be used
}

func (s Site) preferred() bool { return s.Share > 0 && !s.Excluded }

// Move says that traffic has left From, and where most of it went.
type Move struct{ From, To api.SiteID }

// Latch remembers which sites traffic has left. The zero value has left none. Its sites are told apart by index.
type Latch struct {
	left     map[int]bool
	fallback int          // index + 1 of the site without share that is in use; 0 = none
	using    map[int]bool // sites that had a share at the last call; nil before the first
}

// Shares writes the shares now in force into out, which is as long as sites, and returns the moves since the last call.
// All zero means that no site may be used.
func (l *Latch) Shares(sites []Site, reflex bool, out []route.Weight) []Move {
	clear(out)
	if !reflex {
		for i, s := range sites {
			if s.preferred() {
				out[i] = s.Share
			}
		}
		return nil
	}
	l.choose(sites, out)
	return l.moves(sites, out)
}

func (l *Latch) choose(sites []Site, out []route.Weight) {
	if l.share(sites, out) {
		return
	}
	if f := l.fallback - 1; f >= 0 && sites[f].Usable {
		out[f] = route.Whole
		return
	}
	// The site in use has no endpoint left: every site is looked at anew.
	clear(l.left)
	l.fallback = 0
	if l.share(sites, out) {
		return
	}
	best := -1
	for i, s := range sites {
		if s.Usable && !s.Excluded && (best < 0 || s.Priority < sites[best].Priority) {
			best = i
		}
	}
	if best >= 0 {
		l.fallback = best + 1
		out[best] = route.Whole
	}
}

// share gives every preferred site that may be used, and was not left, its share.
func (l *Latch) share(sites []Site, out []route.Weight) (any bool) {
	for i, s := range sites {
		if s.preferred() && s.Usable && !l.left[i] {
			out[i] = s.Share
			any = true
		}
	}
	return any
}

func (l *Latch) moves(sites []Site, out []route.Weight) (moves []Move) {
	heaviest := -1
	for i, w := range out {
		if w > 0 && (heaviest < 0 || w > out[heaviest]) {
			heaviest = i
		}
	}
	if heaviest < 0 {
		return nil // nowhere to go: nothing has left
	}
	if l.using == nil {
		l.using, l.left = map[int]bool{}, map[int]bool{}
		for i, s := range sites {
			l.using[i] = s.preferred()
		}
	}
	for i, s := range sites {
		if out[i] == 0 && s.preferred() && !s.Usable {
			l.left[i] = true
		}
		if l.using[i] && out[i] == 0 {
			moves = append(moves, Move{s.Name, sites[heaviest].Name})
		}
		l.using[i] = out[i] > 0
	}
	return moves
}

// PickSite picks a site by share; r is uniform in [0, 1). -1 if every share is zero.
func PickSite(shares []route.Weight, r float64) int {
	var total uint64
	for _, w := range shares {
		total += uint64(w)
	}
	at := uint64(r * float64(total))
	for i, w := range shares {
		if at < uint64(w) {
			return i
		}
		at -= uint64(w)
	}
	return -1
}

// Elsewhere removes the sites that were tried from shares, if something is left then: for a second attempt. When all
// sites with a share were tried, it gives everything to the usable site of the lowest priority number that was not.
func Elsewhere(sites []Site, shares []route.Weight, tried func(i int) bool) {
	best, left := -1, false
	for i, s := range sites {
		if tried(i) || s.Excluded || !s.Usable {
			continue
		}
		left = left || shares[i] > 0
		if best < 0 || s.Priority < sites[best].Priority {
			best = i
		}
	}
	if best < 0 {
		return
	}
	for i := range shares {
		if tried(i) || !left {
			shares[i] = 0
		}
	}
	if !left {
		shares[best] = route.Whole
	}
}

// Never is the rank of an endpoint that must not be picked.
const Never = -1

// PickEndpoint picks among n endpoints: of those with the lowest rank, the less loaded of two picked at random by
// random(k), uniform in [0, k). -1 if every rank is Never.
func PickEndpoint(n int, rank func(i int) int, load func(i int) int64, random func(k int) int) int {
	best, count := Never, 0
	for i := range n {
		switch r := rank(i); {
		case r == Never || best != Never && r > best:
		case r == best:
			count++
		default:
			best, count = r, 1
		}
	}
	switch count {
	case 0:
		return -1
	case 1:
		return nth(n, rank, best, 0)
	}
	a := random(count)
	b := random(count - 1)
	if b >= a {
		b++
	}
	i, j := nth(n, rank, best, a), nth(n, rank, best, b)
	if i < 0 || j >= 0 && load(j) < load(i) {
		return j
	}
	return i
}

// nth is the k-th index of the given rank, the last one if ranks have changed meanwhile, -1 if none is left.
func nth(n int, rank func(int) int, want, k int) int {
	last := -1
	for i := range n {
		if rank(i) == want {
			if last = i; k == 0 {
				return i
			}
			k--
		}
	}
	return last
}
