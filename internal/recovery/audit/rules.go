package audit

import (
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

// standbyReady: every site that must be able to take over is ready now.
func (c *checker) standbyReady(p placement) {
	if len(p.standby) == 0 {
		c.add(p, CodeStandbyReady, "high", "", false, "no site could take over", "add a second site to "+p.pattern)
	}
	for _, site := range p.standby {
		f := c.facts(p, site)
		answers, why := Answers(f)
		switch {
		case !answers:
			c.add(p, CodeStandbyReady, "high", site, false, why, fixWorkloads(p, site))
		case f.Verdict.State != health.Ready:
			c.add(p, CodeStandbyReady, "medium", site, false,
				fmt.Sprintf("only %d of %d workloads are ready", f.ReadyWorkloads, f.Workloads), fixWorkloads(p, site))
		default:
			c.add(p, CodeStandbyReady, "high", site, true, fmt.Sprintf("%d of %d workloads are ready", f.ReadyWorkloads, f.Workloads), "")
		}
	}
}

// capacityKnown: the demand, and the capacity of every standby, are known.
func (c *checker) capacityKnown(p placement) {
	d := c.Demand[p.name]
	message := fmt.Sprintf("demand %.4g requests/s", d.Rate)
	if !d.Known {
		message = "the demand is not known: fewer than 5 load reports in the last 5 minutes"
	}
	c.add(p, CodeCapacityKnown, "medium", "", d.Known, message, "send traffic through the mesh, and let the sidecars report load")
	for _, site := range p.standby {
		f := c.facts(p, site)
		ok, why := CapacityDeclared(f)
		if ok {
			why = fmt.Sprintf("ready capacity %.4g requests/s", f.ReadyCapacity)
		}
		c.add(p, CodeCapacityKnown, "medium", site, ok, why, "declare spec.capacity of each Workload of "+string(p.name)+" at "+string(site))
	}
}

// capacityEnough: every standby alone can carry the demand.
func (c *checker) capacityEnough(p placement) {
	for _, site := range p.standby {
		c.enough(p, site, c.facts(p, site), "")
	}
}

// survivorsEnough: when any one site of an ActiveActive is lost, the others together can carry the demand. What they
// cannot carry is shed.
func (c *checker) survivorsEnough(p placement) {
	for _, lost := range p.standby {
		var rest Facts
		for _, site := range p.sites {
			if f := c.facts(p, site); site != lost {
				rest.ReadyCapacity += f.ReadyCapacity
				rest.ReadyWorkloads += f.ReadyWorkloads
			}
		}
		c.enough(p, lost, rest, fmt.Sprintf("when %s is lost: ", lost))
	}
}

func (c *checker) enough(p placement, site api.SiteID, f Facts, when string) {
	ok, known, why := Carries(f, c.Demand[p.name], p.capacity)
	severity := "high"
	switch {
	case ok:
		why = fmt.Sprintf("capacity %.4g requests/s for a demand of %.4g", f.ReadyCapacity, c.Demand[p.name].Rate)
	case !known:
		severity = "medium"
	}
	fix := fmt.Sprintf("add workloads of %s at %s", p.name, site)
	if when != "" {
		fix = fmt.Sprintf("add workloads of %s at the other sites", p.name)
	}
	c.add(p, CodeCapacityEnough, severity, site, ok, when+why, fix)
}

// detection: the health check can find a loss, and, where the machine acts by itself, in less time than the objective
// allows for the whole recovery. With reflex the users do not wait for the dwell.
func (c *checker) detection(p placement) {
	h := p.service.Spec.Health
	resource := "Service/" + string(p.name)
	if h.Interval <= 0 || h.Timeout <= 0 || h.Failures < 1 || h.Successes < 1 {
		c.add(p, CodeDetection, "high", "", false, "the health check needs an interval, a timeout and counts above zero", "set spec.health of "+resource)
		return
	}
	takes := time.Duration(h.Failures)*h.Interval.D() + h.Timeout.D()
	parts := fmt.Sprintf("%d checks of %s and a timeout of %s", h.Failures, h.Interval, h.Timeout)
	if !p.reflex {
		takes += p.after
		parts += fmt.Sprintf(", then a dwell of %s", api.Duration(p.after))
	}
	rto := p.service.Spec.Objectives.RTO
	switch {
	case rto == nil:
		c.add(p, CodeDetection, "medium", "", true, fmt.Sprintf("a loss is acted on after %s (%s); no rto is written", takes, parts), "")
	case takes >= rto.D():
		c.add(p, CodeDetection, "high", "", false, fmt.Sprintf("a loss is acted on after %s (%s): the rto is %s", takes, parts, rto),
			fmt.Sprintf("shorten spec.health of %s, or failover.after of %s", resource, p.pattern))
	case !p.reflex && p.mode != api.Automatic:
		c.add(p, CodeDetection, "medium", "", false, fmt.Sprintf("failover is %s and there is no reflex: the rto of %s depends on a person", p.mode, rto),
			"rehearse it in a drill, so that the time of the person is measured")
	default:
		c.add(p, CodeDetection, "high", "", true, fmt.Sprintf("a loss is acted on after %s (%s); the rto is %s", takes, parts, rto), "")
	}
}

// observers: enough observers outside each site report on it that they could call it lost. The server is one of them,
// whether it has seen a lease end or not.
func (c *checker) observers(p placement) {
	need := max(p.observers, health.MinObservers)
	for _, site := range p.sites {
		who := health.Observers(c.Snapshot, p.name, site)
		n := len(who)
		if !slices.Contains(who, health.ServerObserver) {
			n++
		}
		c.add(p, CodeDetection, "high", site, n >= need, fmt.Sprintf("%d observers outside the site, %d must agree", n, need),
			fmt.Sprintf("run sidecars that hold %s at other sites than %s", p.name, site))
	}
}

// certificates: each workload at each site has a certificate that lasts.
func (c *checker) certificates(p placement) {
	for _, site := range p.sites {
		var first *Certificate
		for i, x := range c.Certificates {
			if x.Service == p.name && x.Site == site && (first == nil || x.NotAfter.Before(first.NotAfter)) {
				first = &c.Certificates[i]
			}
		}
		fix := "restart its sidecar, and see why it does not renew"
		f := c.facts(p, site)
		trusted, why := Trusted(f)
		switch {
		case !trusted && f.Workloads > 0:
			c.add(p, CodeCertificates, "high", site, false, why, fix)
		case first == nil && f.ReadyWorkloads > 0:
			c.add(p, CodeCertificates, "high", site, true, "valid now: the ready workloads proved it; when they end is not known", "")
		case first == nil:
			c.add(p, CodeCertificates, "medium", site, false, "no certificate of this site is known", fixWorkloads(p, site))
		case !first.NotAfter.After(c.At):
			c.add(p, CodeCertificates, "high", site, false, fmt.Sprintf("the certificate of %s has ended", first.Workload), fix)
		case first.NotAfter.Sub(c.At) < ExpiresSoon:
			c.add(p, CodeCertificates, "medium", site, false,
				fmt.Sprintf("the certificate of %s ends in %s", first.Workload, first.NotAfter.Sub(c.At).Round(time.Second)), fix)
		default:
			c.add(p, CodeCertificates, "high", site, true,
				fmt.Sprintf("valid for %s", first.NotAfter.Sub(c.At).Round(time.Minute)), "")
		}
	}
}

// reflexStateful: data planes do not move stateful traffic across sites by themselves.
func (c *checker) reflexStateful(p placement) {
	stateful := p.service.Spec.Data == "stateful"
	message := "proxies may cross sites by themselves"
	switch {
	case stateful && p.reflex:
		message = "reflex would let proxies write to a site that nobody promoted; the table ignores it"
	case !p.reflex:
		message = "only the server moves it between sites"
	}
	c.add(p, CodeReflexStateful, "high", "", !stateful || !p.reflex, message, "write reflex: false in "+p.pattern)
}
