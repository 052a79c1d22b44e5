package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const failoverPrefix = "/livefire/failover/"

func cmpStrings[T ~string](a, b T) int { return cmp.Compare(a, b) }

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// configureMachines brings the machines in line with the patterns that operators wrote.
func (l *Loop) configureMachines() {
	want := map[api.ServiceID]failover.Config{}
	var sites []api.Site
	each(l.res, func(o *api.Site) { sites = append(sites, *o) })
	each(l.res, func(o *api.ActivePassive) {
		if svc, ok := l.res.service(o.Spec.Service); ok {
			want[o.Spec.Service] = failover.ActivePassive(*o, *svc, sites)
		}
	})
	each(l.res, func(o *api.ActiveActive) {
		if svc, ok := l.res.service(o.Spec.Service); ok {
			want[o.Spec.Service] = failover.ActiveActive(*o, *svc, sites)
		}
	})
	for name := range l.machines {
		if _, ok := want[name]; !ok {
			delete(l.machines, name)
			delete(l.placed, name)
		}
	}
	for name, c := range want {
		m, ok := l.machines[name]
		if !ok {
			m = failover.New(c)
			l.machines[name] = m
			l.placed[name] = m.Placement()
			continue
		}
		if encode(m.Config) != encode(c) {
			l.pendingConfig = append(l.pendingConfig, failover.Configured{At: l.cfg.Clock(), Config: c})
		}
	}
}

// failoverDue tells every machine what is observed now.
func (l *Loop) failoverDue(ctx context.Context) error {
	configured := l.pendingConfig
	l.pendingConfig = nil
	for _, ev := range configured {
		if err := l.stepFailover(ctx, ev.Config.Service, ev); err != nil {
			return err
		}
	}
	if len(l.table.Services) == 0 {
		return nil
	}
	now := l.cfg.Clock()
	l.serverView(now)
	for _, name := range sortedKeys(l.machines) {
		if err := l.stepFailover(ctx, name, l.observed(now, l.machines[name])); err != nil {
			return err
		}
	}
	return nil
}

// stepFailover takes a machine one event further and does what it says, until it has nothing more to say.
func (l *Loop) stepFailover(ctx context.Context, name api.ServiceID, ev failover.Event) error {
	m, ok := l.machines[name]
	if !ok {
		return nil
	}
	for ev != nil {
		next, actions := m.Step(ev)
		l.machines[name] = next
		m, ev = next, nil
		committed, err := l.carryOut(ctx, name, next, actions)
		if err != nil {
			return err
		}
		if committed != nil {
			ev = *committed
		}
	}
	return nil
}

// carryOut records and stores one step of a machine in one transaction, and publishes the table that it asks for.
func (l *Loop) carryOut(ctx context.Context, name api.ServiceID, m failover.Machine, actions []failover.Action) (*failover.Committed, error) {
	essence := essenceOf(m)
	if len(actions) == 0 && essence == l.saved[name] {
		return nil, nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode failover machine of %s: %w", name, err)
	}
	ops := []store.Op{{Key: failoverPrefix + string(name), Value: b, IfRevision: store.AnyRevision}}
	var entries []ledger.Entry
	var publish *failover.Publish
	var restored []failover.Record
	for _, a := range actions {
		switch a := a.(type) {
		case failover.Record:
			entries = append(entries, l.failoverEntry(a))
			restored = append(restored, a)
		case failover.Publish:
			publish = &a
		case failover.Finding:
			l.cfg.Logger.Warn("failover finding", "service", a.Service, "site", a.Site, "code", a.Code, "what", a.What)
			entry, op, err := l.findingOf(a)
			if err != nil {
				return nil, err
			}
			entries, ops = append(entries, entry), append(ops, op)
		}
	}
	l.saved[name] = essence
	if publish == nil {
		_, err := l.commit(ctx, ops, entries...)
		if err != nil {
			return nil, err
		}
		return nil, l.placementNews(ctx, restored)
	}
	l.placed[name] = pattern.Placement{Active: publish.Active, Shares: publish.Shares}
	next := pattern.Route(l.patternInput(), l.placed, l.table)
	if next.Epoch == l.table.Epoch && publish.Renew {
		next.Epoch++
	}
	if next.Epoch == l.table.Epoch {
		_, err = l.commit(ctx, ops, entries...)
	} else {
		err = l.publish(ctx, next, fmt.Sprintf("%s: %s", name, publish.Cause), ops, entries)
	}
	if err != nil {
		return nil, err
	}
	if err := l.placementNews(ctx, restored); err != nil {
		return nil, err
	}
	return &failover.Committed{At: l.cfg.Clock(), Number: publish.Number, Epoch: uint64(l.table.Epoch)}, nil
}

// essenceOf is what of a machine is worth storing: not the numbers that change with every observation.
func essenceOf(m failover.Machine) string {
	s := m.State
	s.At, s.Demand, s.ObjectivesKnown, s.ObjectivesMet = m.State.Since, m.State.Demand, false, false
	s.Demand.Rate, s.Demand.Known = 0, false
	s.Sites = map[api.SiteID]failover.SiteState{}
	for name, site := range m.State.Sites {
		site.Facts = failover.SiteFacts{}
		s.Sites[name] = site
	}
	return encode(struct {
		C failover.Config
		S failover.State
	}{m.Config, s})
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: a value cannot be encoded: " + err.Error())
	}
	return string(b)
}

func ratios(shares map[api.SiteID]route.Weight) map[api.SiteID]float64 {
	out := make(map[api.SiteID]float64, len(shares))
	for site, w := range shares {
		out[site] = float64(w) / float64(route.Whole)
	}
	return out
}

// failoverEntry turns a machine's fact into a record of the log.
func (l *Loop) failoverEntry(r failover.Record) ledger.Entry {
	actor := cmp.Or(r.Actor, "server")
	var data any
	switch r.Kind {
	case failover.RecordVerdict:
		data = record.Verdict{Service: r.Service, Site: r.Site, State: string(r.State), At: r.At, Observers: r.Observers,
			Of: l.observerCount(r.Service, r.Site), Declared: r.Declared}
	case failover.RecordOrder:
		data = record.Order{Service: r.Service, From: r.From, To: r.To, Cause: r.Cause, Actor: actor, Reason: r.Reason, Override: r.Override, At: r.At}
	case failover.RecordRefusal:
		data = record.Refusal{Service: r.Service, To: r.To, Code: r.Code, Message: r.Message, Actor: actor}
	default:
		data = record.Failback{Service: r.Service, To: r.To, Shares: ratios(r.Shares), At: r.At, Actor: actor, Message: r.Message}
	}
	e := l.entry(record.Kind(r.Kind), actor, string(r.Service), data)
	return e
}

// placementNews tells the active run which services moved.
func (l *Loop) placementNews(ctx context.Context, facts []failover.Record) error {
	for _, r := range facts {
		if err := l.runPlacement(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// Move orders a failover or a fail-back for a person.
func (l *Loop) Move(ctx context.Context, actor string, service api.ServiceID, verb string, r userapi.MoveRequest) (userapi.MoveResponse, error) {
	out := userapi.MoveResponse{Service: service, To: r.To, DryRun: r.DryRun}
	err := l.do(ctx, func(ctx context.Context) error {
		m, ok := l.machines[service]
		if !ok {
			return api.Errorf(api.NotFound, "service/"+string(service), "has no placement pattern").WithHint("livefire get ActivePassive")
		}
		out.From = m.State.Active
		ev := failover.Ordered{At: l.cfg.Clock(), Actor: actor, Verb: failover.Verb(verb), To: r.To, Planned: !r.Unplanned,
			Reason: r.Reason, Override: r.Override, DryRun: r.DryRun}
		_, actions := m.Step(ev)
		for _, a := range actions {
			switch a := a.(type) {
			case failover.Record:
				if a.Kind == failover.RecordRefusal {
					if !r.DryRun {
						if _, err := l.commit(ctx, nil, l.failoverEntry(a)); err != nil {
							return err
						}
					}
					return refusal(service, a)
				}
			case failover.Publish:
				out.Shares, out.To = ratios(a.Shares), cmp.Or(a.Active, out.To)
			case failover.Finding:
				out.Warnings = append(out.Warnings, a.Code+" "+a.What)
			}
		}
		if r.DryRun {
			return nil
		}
		if err := l.stepFailover(ctx, service, ev); err != nil {
			return err
		}
		now := l.machines[service]
		if out.Shares == nil {
			out.Shares = ratios(now.State.Shares)
			if now.State.Reason != "" {
				out.Warnings = append(out.Warnings, now.State.Reason)
			}
			return nil
		}
		out.Epoch = uint64(l.table.Epoch)
		return nil
	})
	return out, err
}

// refusal names the rule, and how to override it where that is allowed.
func refusal(service api.ServiceID, r failover.Record) error {
	e := api.Errorf(api.Denied, "service/"+string(service), "%s", r.Message).WithCode(r.Code)
	switch {
	case r.Overridable:
		return e.WithHint("to accept it: --override=%s --reason TEXT (role admin)", r.Code)
	case r.Fix != "":
		return e.WithHint("%s", r.Fix)
	}
	return e.WithHint("livefire explain %s", r.Code)
}

// loadFailover reads the machines and tells each that it was restarted, once the table is known.
func (l *Loop) loadFailover(ctx context.Context) error {
	items, _, err := l.cfg.Store.List(ctx, failoverPrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, it := range items {
		m, err := failover.Parse(it.Value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", it.Key, err))
			continue
		}
		l.machines[m.Config.Service] = m
		l.placed[m.Config.Service] = m.Placement()
		l.saved[m.Config.Service] = essenceOf(m)
	}
	return errors.Join(errs...)
}
