// Package examples embeds the configurations that the demo starts with and that the documentation shows.
//
// Demo holds the resources of the demo (any file but workloads-*.yaml) and, for each site, the processes that its
// agent runs (workloads-<site>.yaml). ActivePassive is a commented start for a service of one's own.
//
// Units, errors: none, these are files. Concurrency: read only.
package examples

import "embed"

// FS holds demo/ and active-passive/.
//
//go:embed demo/*.yaml active-passive/*.yaml
var FS embed.FS

// DemoResources are the files of the demo that api.DecodeFS reads, in the order in which people read them.
func DemoResources() []string {
	return []string{
		"demo/sites.yaml", "demo/services.yaml", "demo/patterns.yaml", "demo/policies.yaml", "demo/scenarios.yaml", "demo/drills.yaml",
	}
}
