package health

import (
	"cmp"
	"slices"
	"time"
)

// Fresh is the greatest age of an observation that still counts: three of the reports that each node sends every second.
const Fresh = 3 * time.Second

// With is the snapshot in which each given observation replaces the one of the same observer, service and
// site; of several given ones, the last. The order stays as documented on Snapshot. At is the caller's to set.
//
// It copies the whole snapshot once: give it all that arrived together.
func (s Snapshot) With(obs ...Observation) Snapshot {
	added := make([]Observation, 0, len(obs))
	for _, o := range obs {
		o.Endpoints = slices.Clone(o.Endpoints)
		added = append(added, o)
	}
	slices.SortStableFunc(added, compareObservations)

	out := Snapshot{At: s.At, Observations: make([]Observation, 0, len(s.Observations)+len(added))}
	old := s.Observations
	for i, o := range added {
		if i+1 < len(added) && compareObservations(o, added[i+1]) == 0 {
			continue
		}
		n, found := slices.BinarySearchFunc(old, o, compareObservations)
		out.Observations = append(append(out.Observations, old[:n]...), o)
		if found {
			n++
		}
		old = old[n:]
	}
	out.Observations = append(out.Observations, old...)
	return out
}

// Prune is the snapshot without the observations that are older than age at s.At. Observers that are gone
// would otherwise stay in it for ever.
func (s Snapshot) Prune(age time.Duration) Snapshot {
	out := Snapshot{At: s.At}
	for _, o := range s.Observations {
		if s.At.Sub(o.At) <= age {
			out.Observations = append(out.Observations, o)
		}
	}
	return out
}

func compareObservations(a, b Observation) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Observer, b.Observer))
}

// counts says whether an observation is fresh at now and its observer trusts itself. One that lies further in
// the future than Fresh comes from before a step of the clock and is as worthless as an old one.
func (o Observation) counts(now time.Time) bool {
	age := now.Sub(o.At)
	return !o.Abstains && age <= Fresh && age >= -Fresh
}
