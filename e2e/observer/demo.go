package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// demo is what the observer reads of demo.json.
type demo struct {
	Clients map[string]string    `json:"clients"`
	Sites   map[string][]process `json:"sites"`
}

type process struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Sidecar int    `json:"sidecarPid"`
}

func readDemo(path string) (demo, error) {
	var d demo
	b, err := os.ReadFile(path)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b, &d)
}

// targets are the processes of a site: "name" and "name/sidecar" to pid. Nil if one of them does not run.
func (d demo) targets(site string) map[string]int {
	out := map[string]int{}
	for _, p := range d.Sites[site] {
		if p.PID <= 0 || p.Sidecar <= 0 {
			return nil
		}
		out[p.Name], out[p.Name+"/sidecar"] = p.PID, p.Sidecar
	}
	return out
}

// waitDemo waits for a demo.json in which every process of the site runs.
func waitDemo(ctx context.Context, path, site string, want int) (demo, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := readDemo(path)
		if err == nil && len(d.targets(site)) >= want {
			return d, nil
		}
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("%s does not name %d running processes of %s: %w", path, want, site, ctx.Err())
		case <-tick.C:
		}
	}
}
