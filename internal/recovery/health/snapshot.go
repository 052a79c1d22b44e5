package health

import (
	"cmp"
	"slices"
	"time"
)

// Fresh is the greatest age of an observation that still counts: three of the reports that each node sends every second.
const Fresh = 3 * time.Second

// With is the snapshot in which each given observation replaces the one of the same observer, service and
// site. The order stays as documented on Snapshot. At is the caller's to set.
func (s Snapshot) With(obs ...Observation) Snapshot {
	out := Snapshot{At: s.At, Observations: slices.Clone(s.Observations)}
	for _, o := range obs {
		o.Endpoints = slices.Clone(o.Endpoints)
		i, found := slices.BinarySearchFunc(out.Observations, o, compareObservations)
		if found {
			out.Observations[i] = o
		} else {
			out.Observations = slices.Insert(out.Observations, i, o)
		}
	}
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
