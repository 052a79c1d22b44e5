package audit

import (
	"fmt"

	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

// Facts is what is known of one service at one site: what these rules judge, and what a failover asks of a target.
type Facts struct {
	Verdict           health.Verdict `json:"verdict"`
	ReadyCapacity     float64        `json:"readyCapacity"` // requests/s of the ready workloads; zero = not declared
	ReadyWorkloads    int            `json:"readyWorkloads"`
	Workloads         int            `json:"workloads"`
	CertificatesValid bool           `json:"certificatesValid"`
}

// Demand is the observed load of a service over all its sites. Without Known the rate says nothing.
type Demand struct {
	Rate  float64 `json:"rate"` // requests/s
	Known bool    `json:"known"`
}

// Answers says whether a site serves requests now: it is ready, or degraded with at least one ready workload.
// Whether what is left suffices is for Carries to say: one dead workload must not forbid a failover.
func Answers(f Facts) (ok bool, message string) {
	switch f.Verdict.State {
	case health.Ready, health.Degraded:
		if f.ReadyWorkloads > 0 {
			return true, ""
		}
		return false, fmt.Sprintf("none of its %d workloads is ready", f.Workloads)
	case health.Lost, health.Suspect:
		return false, "it is " + string(f.Verdict.State)
	}
	return false, "nobody can say whether it is ready"
}

// CapacityDeclared says whether the ready workloads say what they can serve.
func CapacityDeclared(f Facts) (ok bool, message string) {
	if f.ReadyCapacity > 0 {
		return true, ""
	}
	return false, "its ready workloads declare no capacity"
}

// Carries says whether the ready capacity of a site is at least ratio times the demand. known is false if the demand
// or the capacity is not known; a ratio of zero asks for nothing.
func Carries(f Facts, d Demand, ratio float64) (ok, known bool, message string) {
	if ratio <= 0 {
		return true, true, ""
	}
	if !d.Known {
		return false, false, "the demand is not known: fewer than 5 load reports in the last 5 minutes"
	}
	if declared, why := CapacityDeclared(f); !declared {
		return d.Rate == 0, d.Rate == 0, why
	}
	if f.ReadyCapacity >= ratio*d.Rate {
		return true, true, ""
	}
	return false, true, fmt.Sprintf("its ready capacity is %.4g requests/s, %.4g are needed (demand %.4g x %.4g)",
		f.ReadyCapacity, ratio*d.Rate, d.Rate, ratio)
}

// Trusted says whether every certificate there is valid.
func Trusted(f Facts) (ok bool, message string) {
	if f.CertificatesValid {
		return true, ""
	}
	return false, "a certificate there is not valid"
}
