// Command bench compares failover: how many requests fail, are late, or are executed twice, and how long users are hurt.
//
// Each row is a number of demo runs of one fault at 500 requests/s of GET with a 20 ms answer; the numbers are medians
// over the runs, from each run's own report and samples. Peers join the same rounds, so that ratios can be formed within one.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// late is how long after its intended time an answer counts as delayed.
const late = 100 * time.Millisecond

func main() {
	rounds := flag.Int("rounds", 3, "runs of each fault")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int) error {
	dir, err := os.MkdirTemp("", "livefire-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // only this run's own files
	bin := filepath.Join(dir, "livefire")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/livefire")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build livefire: %w", err)
	}
	rows := map[string][]result{}
	for round := range rounds {
		for _, fault := range []string{"kill", "pause"} {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, rounds, fault)
			r, err := failover(ctx, bin, filepath.Join(dir, fmt.Sprintf("%s-%d", fault, round)), fault)
			if err != nil {
				return fmt.Errorf("%s: %w", fault, err)
			}
			rows[fault] = append(rows[fault], r)
		}
	}
	fmt.Printf("failover of payments (reflex), 500 GET/s, 20 ms answers, median of %d\n", rounds)
	fmt.Printf("%-10s %-6s %8s %8s %8s %10s %12s\n", "proxy", "fault", "failed", "delayed", "twice", "slowest", "recovery")
	for _, fault := range []string{"kill", "pause"} {
		m := median(rows[fault])
		fmt.Printf("%-10s %-6s %8d %8d %8d %10s %12s\n", "livefire", fault, m.failed, m.delayed, m.twice,
			m.slowest.Round(time.Millisecond), m.recovery.Round(10*time.Millisecond))
	}
	return nil
}

// result of one run.
type result struct {
	failed, delayed, twice int
	slowest, recovery      time.Duration
}

func failover(ctx context.Context, bin, dir, fault string) (result, error) {
	var r result
	cmd := exec.CommandContext(ctx, bin, "demo", "--dir", dir, "--set", "fault="+fault, "--set", "rate.payments=500",
		"--set", "path.payments=/?delay=20ms", "--set", "baseline=2s", "--set", "hold=4s", "--set", "verify=2s", "-o", "json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it restores before it ends
	cmd.WaitDelay = time.Minute
	var progress bytes.Buffer
	cmd.Stderr = &progress
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("%w\n%s", err, progress.String())
	}
	b, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		return r, err
	}
	var rep report.Report
	if err := json.Unmarshal(b, &rep); err != nil {
		return r, err
	}
	for _, s := range rep.Services {
		if s.Service != "payments" {
			continue
		}
		r.failed = s.Account.Failed.Sum()
		r.twice = s.Account.ExecutedTwice
		if s.RTA != nil {
			r.recovery = time.Duration(*s.RTA * float64(time.Second))
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "evidence", rep.Run.ID, "samples", "*payments*.jsonl"))
	if err != nil {
		return r, err
	}
	for _, name := range files {
		if err := r.add(name, rep.Run.InjectedAt); err != nil {
			return r, err
		}
	}
	return r, nil
}

// add counts the late samples of one chunk from the fault on.
func (r *result) add(name, injected string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	from, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(injected))
	if err != nil {
		return fmt.Errorf("when the fault was injected: %w", err)
	}
	chunk, err := sample.DecodeChunk(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, s := range chunk.Samples {
		if s.Intended.Before(from.Add(-time.Second)) {
			continue
		}
		if s.End > late {
			r.delayed++
		}
		r.slowest = max(r.slowest, s.End)
	}
	return nil
}

func median(list []result) result {
	pick := func(less func(a, b result) int) result {
		sorted := slices.SortedFunc(slices.Values(list), less)
		return sorted[len(sorted)/2]
	}
	return result{
		failed:   pick(func(a, b result) int { return a.failed - b.failed }).failed,
		delayed:  pick(func(a, b result) int { return a.delayed - b.delayed }).delayed,
		twice:    pick(func(a, b result) int { return a.twice - b.twice }).twice,
		slowest:  pick(func(a, b result) int { return int(a.slowest - b.slowest) }).slowest,
		recovery: pick(func(a, b result) int { return int(a.recovery - b.recovery) }).recovery,
	}
}
