package audit

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// ExpiresSoon is how long before its end a certificate is a finding: nodes renew theirs hours earlier.
const ExpiresSoon = time.Hour

// Input is everything that the rules look at.
type Input struct {
	At            time.Time
	Services      []api.Service
	ActivePassive []api.ActivePassive
	ActiveActive  []api.ActiveActive
	Table         route.Table
	Snapshot      health.Snapshot
	Facts         map[api.ServiceID]map[api.SiteID]Facts // see Observe
	Demand        map[api.ServiceID]Demand
	Active        map[api.ServiceID]api.SiteID // active site of each ActivePassive; missing = the first of its order
	Certificates  []Certificate
}

// Certificate is how long one workload may be believed.
type Certificate struct {
	Service  api.ServiceID
	Site     api.SiteID
	Workload string
	NotAfter time.Time
}

// Finding is one rule's answer for one service, at one site if it is about a site.
type Finding struct {
	Code     string        `json:"code"`
	Name     string        `json:"name"`
	Severity string        `json:"severity"` // high | medium | low; how bad it is when it is not OK
	Service  api.ServiceID `json:"service"`
	Site     api.SiteID    `json:"site,omitempty"`
	OK       bool          `json:"ok"`
	Message  string        `json:"message"`
	Fix      string        `json:"fix,omitempty"` // only when it is not OK
}

// Rule is a rule of the audit by code.
type Rule struct {
	Code string
	Name string
}

// Rules lists the rules that Check answers, by code.
func Rules() []Rule {
	return []Rule{
		{CodeStandbyReady, "standby-ready"},
		{CodeCapacityKnown, "capacity-known"},
		{CodeCapacityEnough, "capacity-enough"},
		{CodeDetection, "detection-configured"},
		{CodeCertificates, "certificate-valid"},
		{CodeReflexStateful, "reflex-stateful"},
	}
}

// Check answers every rule for every service that has a placement pattern, sorted by service, code and site.
func Check(in Input) []Finding {
	c := checker{Input: in}
	for _, svc := range in.Services {
		name := api.ServiceID(svc.Metadata.Name)
		for _, p := range in.ActivePassive {
			if p.Spec.Service == name {
				c.check(c.passive(p, svc))
			}
		}
		for _, p := range in.ActiveActive {
			if p.Spec.Service == name {
				c.check(c.active(p, svc))
			}
		}
	}
	slices.SortFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Message, b.Message))
	})
	return c.findings
}

type checker struct {
	Input
	findings []Finding
}

// placement is a pattern as the rules see it.
type placement struct {
	name      api.ServiceID
	service   api.Service
	pattern   string       // "ActivePassive/payments"
	sites     []api.SiteID // all that residency allows
	standby   []api.SiteID // those that must be able to take over
	together  bool         // the standbys share the load: the survivors of each loss carry it
	capacity  float64
	reflex    bool
	mode      string
	after     time.Duration
	observers int
}

func (c *checker) passive(p api.ActivePassive, svc api.Service) placement {
	pl := placement{
		name: p.Spec.Service, service: svc, pattern: "ActivePassive/" + p.Metadata.Name,
		capacity: 1, reflex: svc.Spec.Data != "stateful",
		mode: p.Spec.Failover.Mode, after: p.Spec.Failover.After.D(), observers: p.Spec.Failover.Observers,
	}
	if p.Spec.Require.Capacity != nil {
		pl.capacity = *p.Spec.Require.Capacity
	}
	if p.Spec.Reflex != nil {
		pl.reflex = *p.Spec.Reflex
	}
	pl.sites = c.allowed(pl.name, p.Spec.Order)
	active := c.Active[pl.name]
	if active == "" && len(pl.sites) > 0 {
		active = pl.sites[0]
	}
	for _, site := range pl.sites {
		if site != active {
			pl.standby = append(pl.standby, site)
		}
	}
	return pl
}

func (c *checker) active(p api.ActiveActive, svc api.Service) placement {
	pl := placement{
		name: p.Spec.Service, service: svc, pattern: "ActiveActive/" + p.Metadata.Name,
		capacity: 1, together: true, reflex: svc.Spec.Data != "stateful",
		mode: p.Spec.Evacuate.Mode, after: p.Spec.Evacuate.After.D(), observers: p.Spec.Evacuate.Observers,
	}
	var names []api.SiteID
	for site, w := range p.Spec.Weights {
		if w > 0 {
			names = append(names, site)
		}
	}
	slices.Sort(names)
	pl.sites = c.allowed(pl.name, names)
	if len(pl.sites) > 1 {
		pl.standby = pl.sites
	}
	return pl
}

// allowed leaves out the sites that the table excludes.
func (c *checker) allowed(name api.ServiceID, sites []api.SiteID) []api.SiteID {
	s, _ := c.Table.Service(name)
	var out []api.SiteID
	for _, site := range sites {
		excluded := slices.ContainsFunc(s.Sites, func(x route.Site) bool { return x.Name == site && x.Excluded })
		if !excluded && !slices.Contains(out, site) {
			out = append(out, site)
		}
	}
	return out
}

func (c *checker) check(p placement) {
	c.standbyReady(p)
	c.capacityKnown(p)
	if p.together {
		c.survivorsEnough(p)
	} else {
		c.capacityEnough(p)
	}
	c.detection(p)
	c.observers(p)
	c.certificates(p)
	c.reflexStateful(p)
}

// add files an answer. The fix of a good one is nobody's business.
func (c *checker) add(p placement, code, severity string, site api.SiteID, ok bool, message, fix string) {
	name := ""
	for _, r := range Rules() {
		if r.Code == code {
			name = r.Name
		}
	}
	if ok {
		fix = ""
	}
	c.findings = append(c.findings, Finding{Code: code, Name: name, Severity: severity, Service: p.name, Site: site, OK: ok, Message: message, Fix: fix})
}

func (c *checker) facts(p placement, site api.SiteID) Facts { return c.Facts[p.name][site] }

func fixWorkloads(p placement, site api.SiteID) string {
	return fmt.Sprintf("start workloads of %s at %s, or repair them: livefire status %s", p.name, site, p.name)
}
