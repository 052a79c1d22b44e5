package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// options of one observation.
type options struct {
	demo, site, out, log string
	targets              int
	rates                map[string]float64
	paths                map[string]string
	objective            float64
	timeout, request     time.Duration
	after                time.Duration
}

// output is what is written at the end.
type output struct {
	Target    string     `json:"target,omitempty"` // the first one that the fault hit
	How       string     `json:"how,omitempty"`
	TI        *bracket   `json:"tI,omitempty"`
	HoldEnd   *time.Time `json:"holdEnd,omitempty"`
	Sightings []sighting `json:"sightings"`
	Services  []result   `json:"services"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	o, err := parse(os.Args[1:])
	if err == nil {
		err = observe(ctx, o)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "observer: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{rates: map[string]float64{}, paths: map[string]string{}}
	f := flag.NewFlagSet("observer", flag.ContinueOnError)
	f.StringVar(&o.demo, "demo", "", "path of demo.json; it may come later")
	f.StringVar(&o.site, "site", "eu-west", "site whose processes are watched")
	f.IntVar(&o.targets, "targets", 10, "processes that the site has")
	f.StringVar(&o.out, "out", "", "file for the result")
	f.StringVar(&o.log, "log", "", "file for one line per sample")
	f.Float64Var(&o.objective, "objective", 0.99, "success objective")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "end at the latest")
	f.DurationVar(&o.request, "request-timeout", 2*time.Second, "of one request, from its intended time")
	f.DurationVar(&o.after, "after", time.Second, "go on so long after the first process lives again")
	pairs := func(set func(k, v string) error) func(string) error {
		return func(s string) error {
			for kv := range strings.SplitSeq(s, ",") {
				k, v, ok := strings.Cut(kv, "=")
				if !ok {
					return fmt.Errorf("%q is not SERVICE=VALUE", kv)
				}
				if err := set(k, v); err != nil {
					return err
				}
			}
			return nil
		}
	}
	f.Func("rate", "SERVICE=REQUESTS_PER_SECOND,...", pairs(func(k, v string) (err error) {
		if o.rates[k], err = strconv.ParseFloat(v, 64); err == nil && !(o.rates[k] > 0 && o.rates[k] <= 2000) {
			err = fmt.Errorf("rate %s of %s: more than 0, at most 2000", v, k)
		}
		return err
	}))
	f.Func("path", "SERVICE=PATH,... (default /)", pairs(func(k, v string) error {
		o.paths[k] = v
		return nil
	}))
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.demo == "" || o.out == "" || len(o.rates) == 0 {
		return o, errors.New("--demo, --out and --rate are required")
	}
	return o, nil
}

// observe loads and watches until the end, then writes what it saw.
func observe(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	d, err := waitDemo(ctx, o.demo, o.site, o.targets)
	if err != nil {
		return err
	}
	w, err := newWatcher(o.demo, o.site, d.targets(o.site))
	if err != nil {
		return err
	}
	var ids atomic.Int64
	var loads []*load
	for _, service := range slices.Sorted(maps.Keys(o.rates)) {
		url, ok := d.Clients[service]
		if !ok {
			return fmt.Errorf("%s names no client port of %s", o.demo, service)
		}
		loads = append(loads, newLoad(service, url+cmp.Or(o.paths[service], "/"), o.rates[service], o.request, &ids))
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, l := range loads {
		running.Go(func() { l.run(stop) })
	}
	err = w.run(ctx, o.after)
	close(stop)
	running.Wait()
	if err != nil {
		return err
	}
	return write(o, loads, w.sightings())
}

func write(o options, loads []*load, seen []sighting) error {
	slices.SortFunc(seen, func(a, b sighting) int { return cmp.Compare(a.Target, b.Target) })
	out := output{Sightings: seen}
	var fault bracket
	if first := faultSeen(seen); first.Target != "" {
		fault = first.Seen
		out.Target, out.How, out.TI = first.Target, first.How, &fault
	}
	end := holdEnd(seen)
	if !end.IsZero() {
		out.HoldEnd = &end
	}
	for _, l := range loads {
		out.Services = append(out.Services, measure(l.service, l.samples, l.rate, o.objective, fault, end))
	}
	if o.log != "" {
		if err := writeLog(o.log, loads); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	return os.WriteFile(o.out, append(b, '\n'), 0o600)
}

func writeLog(path string, loads []*load) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := bufio.NewWriter(f)
	enc := json.NewEncoder(b)
	for _, l := range loads {
		for _, s := range l.samples {
			if err := enc.Encode(s); err != nil {
				return fmt.Errorf("write the log: %w", err)
			}
		}
	}
	return b.Flush()
}
