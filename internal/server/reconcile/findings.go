package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

type entry = ledger.Entry

// putFinding is the write of a finding and its record.
func (l *Loop) putFinding(f *api.Finding, actor string) (store.Op, entry, error) {
	op, err := putOp(f)
	return op, l.entry(record.FindingChanged, actor, f.Metadata.Name, f.Spec), err
}

// findingOf is the standing finding that a failover machine states: one per code, service and site.
func (l *Loop) findingOf(a failover.Finding) (entry, store.Op, error) {
	name := fmt.Sprintf("F-%s-%s", a.Service, strings.ToLower(a.Code))
	if a.Site != "" {
		name += "-" + string(a.Site)
	}
	f := &api.Finding{Type: api.Type{APIVersion: api.Version, Kind: api.KindFinding}, Metadata: api.Metadata{Name: name},
		Spec: api.FindingSpec{Service: a.Service, Code: a.Code, Severity: a.Severity, What: a.What + "; " + a.Fix, Status: api.FindingOpen}}
	op, e, err := l.putFinding(f, "server")
	return e, op, err
}

// retests compares every applied finding on the run's services with what the run has measured.
func (l *Loop) retests(r *run, verdict drill.Verdict, result measure.Result) ([]store.Op, []entry, error) {
	var ops []store.Op
	var entries []entry
	if verdict == drill.Aborted || verdict == drill.Dirty {
		return nil, nil, nil // nothing was measured to the end
	}
	var err error
	each(l.res, func(old *api.Finding) {
		if err != nil || old.Spec.Status != api.FindingApplied || old.Spec.Predicted == nil || old.Spec.Run == r.id() {
			return
		}
		retest := measure.Retest(old.Spec, result)
		if retest.Outcome == measure.NotRetested {
			return
		}
		f := *old
		f.Spec.Retest = &retest
		f.Spec.Status = api.FindingClosed
		if retest.Outcome == measure.NotHelped {
			f.Spec.Status = api.FindingNotHelped
		}
		f.Spec.Reason = retestReason(retest)
		op, e, opErr := l.putFinding(&f, "server")
		err, e.Run = opErr, ""
		ops, entries = append(ops, op), append(entries, e)
	})
	return ops, entries, err
}

func retestReason(t api.Retest) string {
	s := fmt.Sprintf("%s: %.2f s before, %.2f s +- %.2f s in %s", t.Outcome, t.Before, t.After, t.Uncertainty, t.Run)
	if t.Missed {
		s += "; prediction missed"
	}
	return s
}

func (l *Loop) finding(ctx context.Context, id string) (*api.Finding, error) {
	return store.GetObject[api.Finding](ctx, l.cfg.Store, id)
}

// ApplyFinding makes the change that a finding names.
func (l *Loop) ApplyFinding(ctx context.Context, by, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
	var out userapi.FindingResponse
	f, err := l.finding(ctx, id)
	if err != nil {
		return out, err
	}
	out.Finding = *f
	if f.Spec.Status != api.FindingOpen && f.Spec.Status != api.FindingNotHelped {
		return out, api.Errorf(api.Denied, id, "is %s", f.Spec.Status).WithHint("livefire finding show %s", id)
	}
	if f.Spec.Change == nil {
		return out, api.Errorf(api.Denied, id, "names no change that livefire could make").WithHint("livefire finding close %s --reason TEXT", id)
	}
	objects, err := l.changed(ctx, *f.Spec.Change)
	if err != nil {
		return out, err
	}
	resp, err := l.cfg.Change(ctx, by, userapi.ApplyRequest{Objects: objects, DryRun: r.DryRun, Reason: id})
	if err != nil {
		return out, err
	}
	out.Changes = resp.Changes
	if r.DryRun {
		return out, nil
	}
	f.Spec.Status, f.Spec.Reason = api.FindingApplied, r.Reason
	return l.saveFinding(ctx, by, f, out)
}

// changed is the resource of a change with its patch applied.
func (l *Loop) changed(ctx context.Context, c api.Change) ([]json.RawMessage, error) {
	kind, name, ok := strings.Cut(c.Resource, "/")
	if !ok {
		return nil, api.Errorf(api.Internal, c.Resource, "is not the name of a resource")
	}
	ref := api.Ref{Kind: api.Kind(kind), Name: name}
	item, err := l.cfg.Store.Get(ctx, store.KindPrefix(ref.Kind)+ref.Name)
	if err != nil {
		return nil, err
	}
	o, err := store.DecodeObject(item)
	if err != nil {
		return nil, err
	}
	patched, err := api.ApplyPatch(o, c.Patch)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(patched)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", ref, err)
	}
	return []json.RawMessage{b}, nil
}

// CloseFinding closes a finding by a person's word.
func (l *Loop) CloseFinding(ctx context.Context, by, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
	var out userapi.FindingResponse
	f, err := l.finding(ctx, id)
	if err != nil {
		return out, err
	}
	if r.Reason == "" {
		return out, api.Errorf(api.Invalid, id, "say why it is closed").WithHint("--reason TEXT")
	}
	f.Spec.Status, f.Spec.Reason = api.FindingClosed, r.Reason
	if f.Spec.Retest == nil {
		f.Spec.Status = api.FindingWaived // no run has shown that it is gone
	}
	return l.saveFinding(ctx, by, f, out)
}

func (l *Loop) saveFinding(ctx context.Context, by string, f *api.Finding, out userapi.FindingResponse) (userapi.FindingResponse, error) {
	err := l.do(ctx, func(ctx context.Context) error {
		op, e, err := l.putFinding(f, "user:"+by)
		if err != nil {
			return err
		}
		_, err = l.commit(ctx, []store.Op{op}, e)
		return err
	})
	out.Finding = *f
	return out, err
}
