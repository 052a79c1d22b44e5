package audit

import (
	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Observe is what is known of a service at each site of its table: the verdict of at least that many observers, and
// what the workloads that are healthy and registered can carry. A site that is missing in untrusted has valid
// certificates.
func Observe(snap health.Snapshot, s route.Service, observers int, untrusted map[api.SiteID]bool) map[api.SiteID]Facts {
	out := make(map[api.SiteID]Facts, len(s.Sites))
	for _, site := range s.Sites {
		names := make([]string, len(site.Endpoints))
		byName := make(map[string]route.Endpoint, len(site.Endpoints))
		for i, e := range site.Endpoints {
			names[i], byName[e.Workload] = e.Workload, e
		}
		f := Facts{
			Verdict:           health.Judge(snap, s.Name, site.Name, names, observers),
			Workloads:         len(names),
			CertificatesValid: !untrusted[site.Name],
		}
		for _, name := range health.Healthy(snap, s.Name, site.Name, names) {
			if e := byName[name]; e.Registered {
				f.ReadyWorkloads++
				f.ReadyCapacity += e.Capacity
			}
		}
		out[site.Name] = f
	}
	return out
}
