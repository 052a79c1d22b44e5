package failover

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// TestScenarios plays testdata/*.txt. Each file quotes a sentence of the pattern's specification and shows it. A line
// that begins with a word is a command; the indented lines below it are what the machine answered.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(b)
			got := newPlayer(t).play(want)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

// player holds one machine and the loop around it: it confirms each Publish at once while auto is on.
type player struct {
	t     *testing.T
	m     Machine
	born  bool
	auto  bool
	now   time.Time
	epoch uint64
	table map[api.SiteID]route.Weight
	out   strings.Builder
	steps int
}

func newPlayer(t *testing.T) *player { return &player{t: t, now: start, epoch: 1} }

func (p *player) play(script string) string {
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&p.out, line)
		case !strings.HasPrefix(line, " "):
			fmt.Fprintln(&p.out, line)
			p.command(strings.Fields(line))
		}
	}
	return p.out.String()
}

// command: "config k=v ...", "auto on|off", "run SPAN", "restart", or "[+SPAN] event k=v ...".
func (p *player) command(words []string) {
	if span, ok := strings.CutPrefix(words[0], "+"); ok {
		p.now = p.now.Add(p.span(span))
		words = words[1:]
	}
	args := arguments(words[1:])
	switch words[0] {
	case "config":
		p.configure(args)
	case "auto":
		p.auto = words[1] == "on"
	case "run":
		p.run(p.span(words[1]))
	case "restart":
		p.reload()
		p.step(Restarted{At: p.now})
		p.printState()
	default:
		p.step(p.event(words[0], words[1:], args))
		p.printState()
	}
}

// run lets time pass, ticking only when the machine asked for it.
func (p *player) run(span time.Duration) {
	end := p.now.Add(span)
	for ticks := 0; ; ticks++ {
		next := p.m.Next()
		if next.IsZero() || next.After(end) {
			break
		}
		if ticks > 500 {
			p.t.Fatalf("Next does not end: %s", next)
		}
		p.now = next
		p.step(Tick{At: p.now})
	}
	p.now = end
	p.step(Tick{At: p.now})
	p.printState()
}

func (p *player) step(ev Event) {
	if p.steps++; p.steps > 10_000 {
		p.t.Fatal("the machine does not come to rest")
	}
	before, _ := json.Marshal(p.m)
	m, actions := p.m.Step(ev)
	if after, _ := json.Marshal(p.m); string(before) != string(after) {
		p.t.Fatalf("Step(%+v) changed the machine that it was called on:\n%s\n%s", ev, before, after)
	}
	p.m = m
	p.reload()
	var confirm []Publish
	for _, a := range actions {
		fmt.Fprintf(&p.out, "  %s %s\n", p.clock(), text(a))
		if pub, ok := a.(Publish); ok {
			confirm = append(confirm, pub)
		}
	}
	if o, ok := ev.(Ordered); ok && o.DryRun {
		return
	}
	for _, pub := range confirm {
		if p.auto {
			p.commit(pub.Number, pub.Shares, pub.Renew)
			p.step(Acked{At: p.now, Epoch: p.epoch, AllReachable: true})
		}
	}
}

func (p *player) commit(number uint64, shares map[api.SiteID]route.Weight, renew bool) {
	if renew || !maps.Equal(shares, p.table) {
		p.epoch++
		p.table = shares
	}
	p.step(Committed{At: p.now, Number: number, Epoch: p.epoch})
}

// reload is what a restart does to the machine.
func (p *player) reload() {
	b, err := json.Marshal(p.m)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := Parse(b)
	if err != nil {
		p.t.Fatal(err)
	}
	if d := cmp.Diff(p.m.State, m.State, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" && p.born {
		p.t.Errorf("the machine does not survive its JSON: %s", d)
	}
	p.m = m
}

func (p *player) configure(args map[string]string) {
	c := p.m.Config
	if !p.born {
		c = Config{Service: "payments", Pattern: "ActivePassive/payments", Order: []api.SiteID{"eu-west", "us-east"}, Mode: api.Automatic,
			After: 5 * time.Second, Observers: 2, MaxSwitches: 2, SwitchWindow: time.Hour, RequireReady: true, RequireCapacity: 1,
			FailbackMode: api.Automatic, FailbackAfter: 5 * time.Minute, RampShares: []float64{0.1, 0.5, 1}, RampEvery: time.Minute}
	}
	for k, v := range args {
		switch k {
		case "order":
			c.Order = sites(v)
		case "weights":
			c.Order, c.Weights, c.Pattern, c.MaxSwitches = nil, map[api.SiteID]float64{}, "ActiveActive/payments", 0
			for _, x := range strings.Split(v, ",") {
				site, w, _ := strings.Cut(x, ":")
				c.Order = append(c.Order, api.SiteID(site))
				c.Weights[api.SiteID(site)] = p.number(w)
			}
		case "excluded":
			c.Excluded = sites(v)
		case "data":
			c.Stateful = v == "stateful"
		case "mode":
			c.Mode = v
		case "after":
			c.After = p.span(v)
		case "switches":
			c.MaxSwitches = int(p.number(v))
		case "capacity":
			c.RequireCapacity = p.number(v)
		case "failback":
			c.FailbackMode = v
		case "failback-after":
			c.FailbackAfter = p.span(v)
		case "ramp":
			c.RampShares = nil
			for _, x := range strings.Split(v, ",") {
				c.RampShares = append(c.RampShares, p.number(x))
			}
		case "every":
			c.RampEvery = p.span(v)
		default:
			p.t.Fatalf("unknown setting %q", k)
		}
	}
	if c = c.complete(); !p.born {
		p.m, p.born = New(c), true
		p.table = p.m.State.Shares
		p.m, _ = p.m.Step(Tick{At: p.now})
		p.printState()
		return
	}
	p.step(Configured{At: p.now, Config: c})
	p.printState()
}

func (p *player) event(name string, words []string, args map[string]string) Event {
	switch name {
	case "tick":
		return Tick{At: p.now}
	case "observe":
		return p.observed(args)
	case "failover", "failback", "approve", "declare-lost":
		return Ordered{At: p.now, Actor: or(args["by"], "ops1"), Verb: Verb(name), To: api.SiteID(args["to"]), Planned: slices.Contains(words, "planned"),
			Reason: args["reason"], Override: strings.FieldsFunc(args["override"], func(r rune) bool { return r == ',' }), DryRun: slices.Contains(words, "dry-run")}
	case "commit":
		if p.m.State.Pending == nil {
			p.t.Fatal("nothing to commit")
		}
		pub := p.m.State.Pending.Publish
		if pub.Renew || !maps.Equal(pub.Shares, p.table) {
			p.epoch++
			p.table = pub.Shares
		}
		return Committed{At: p.now, Number: pub.Number, Epoch: p.epoch}
	case "ack":
		return Acked{At: p.now, Epoch: p.epoch, AllReachable: !slices.Contains(words, "missing")}
	case "drill":
		return Drill{At: p.now, Run: or(args["run"], "run-1"), Begin: slices.Contains(words, "begin"), Site: api.SiteID(args["site"])}
	}
	p.t.Fatalf("unknown command %q", name)
	return nil
}

// observed: site=state[:capacity], demand=rate, objectives=met|missed, reflexed=yes, left=site, certificate=site (not valid).
func (p *player) observed(args map[string]string) Observed {
	ev := Observed{At: p.now, Sites: map[api.SiteID]SiteFacts{}}
	for k, v := range args {
		switch k {
		case "demand":
			ev.Demand, ev.DemandKnown = p.number(v), true
		case "objectives":
			ev.ObjectivesKnown, ev.ObjectivesMet = true, v == "met"
		case "reflexed":
			ev.Reflexed = v == "yes"
		case "left":
			ev.Left = sites(v)
		case "certificate":
		default:
			state, capacity, _ := strings.Cut(v, ":")
			f := SiteFacts{Workloads: 2, CertificatesValid: !slices.Contains(sites(args["certificate"]), api.SiteID(k)),
				Verdict: health.Verdict{Service: "payments", Site: api.SiteID(k), State: health.State(state)}}
			switch f.Verdict.State {
			case health.Ready, health.Degraded:
				f.ReadyWorkloads = 2
				if capacity != "" {
					f.ReadyCapacity = p.number(capacity)
				}
			case health.Lost:
				f.Verdict.Agree = []api.NodeID{"client-1", "us-1"}
			}
			ev.Sites[api.SiteID(k)] = f
		}
	}
	return ev
}

func (p *player) clock() string { return "t=" + p.now.Sub(start).String() }

func (p *player) printState() {
	st := p.m.State
	next := "never"
	if at := p.m.Next(); !at.IsZero() {
		next = "in " + at.Sub(p.now).String()
	}
	fmt.Fprintf(&p.out, "  %s = %s active=%s shares=[%s] next %s; %s\n", p.clock(), st.Phase, or(string(st.Active), "-"), shareText(st.Shares), next, or(st.Reason, "-"))
}

func text(a Action) string {
	switch a := a.(type) {
	case Publish:
		s := fmt.Sprintf("publish #%d active=%s shares=[%s] cause=%s actor=%s", a.Number, or(string(a.Active), "-"), shareText(a.Shares), a.Cause, a.Actor)
		if a.Renew {
			s += " renew"
		}
		return s
	case Finding:
		return fmt.Sprintf("finding %s %s %s: %s -> %s", a.Code, a.Severity, or(string(a.Site), "-"), a.What, a.Fix)
	case Record:
		s := "record " + string(a.Kind)
		for _, kv := range [][2]string{{"site", string(a.Site)}, {"state", string(a.State)}, {"declared", a.Declared}, {"from", string(a.From)}, {"to", string(a.To)},
			{"cause", a.Cause}, {"actor", a.Actor}, {"reason", a.Reason}, {"override", strings.Join(a.Override, ",")}, {"code", a.Code}, {"message", a.Message},
			{"shares", shareText(a.Shares)}, {"drill", a.Drill}} {
			if kv[1] != "" {
				s += fmt.Sprintf(" %s=%q", kv[0], kv[1])
			}
		}
		return s
	}
	return fmt.Sprintf("%T", a)
}

func shareText(shares map[api.SiteID]route.Weight) string {
	var out []string
	for _, site := range slices.Sorted(maps.Keys(shares)) {
		out = append(out, fmt.Sprintf("%s %.4g", site, shares[site].Ratio()))
	}
	return strings.Join(out, ", ")
}

func arguments(words []string) map[string]string {
	out := map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			out[k] = v
		}
	}
	return out
}

func (p *player) span(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p *player) number(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func sites(s string) []api.SiteID {
	var out []api.SiteID
	for _, x := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		out = append(out, api.SiteID(x))
	}
	return out
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
