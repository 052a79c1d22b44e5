package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// kindOf reads a kind from the path or the query.
func kindOf(name string) (api.Kind, error) {
	for _, k := range api.Kinds() {
		if string(k) == name {
			return k, nil
		}
	}
	return "", api.Errorf(api.Invalid, "kind", "%q is not a kind", name).WithHint("one of %v", api.Kinds())
}

func (s *Server) list(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	k, err := kindOf(r.PathValue("kind"))
	if err != nil {
		return nil, err
	}
	items, _, err := s.cfg.Store.List(r.Context(), store.KindPrefix(k))
	if err != nil {
		return nil, err
	}
	out := make([]api.Object, 0, len(items))
	for _, it := range items {
		o, err := store.DecodeObject(it)
		if err != nil {
			return nil, err
		}
		s.cfg.Calls.StatusOf(r.Context(), o)
		out = append(out, o)
	}
	return out, nil
}

func (s *Server) get(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	k, err := kindOf(r.PathValue("kind"))
	if err != nil {
		return nil, err
	}
	return s.object(r.Context(), api.Ref{Kind: k, Name: r.PathValue("name")})
}

func (s *Server) object(ctx context.Context, ref api.Ref) (api.Object, error) {
	item, err := s.cfg.Store.Get(ctx, store.KindPrefix(ref.Kind)+ref.Name)
	if api.KindOf(err) == api.NotFound {
		return nil, api.Errorf(api.NotFound, ref.String(), "does not exist").WithHint("livefire get %s", ref.Kind)
	}
	if err != nil {
		return nil, err
	}
	o, err := store.DecodeObject(item)
	if err != nil {
		return nil, err
	}
	s.cfg.Calls.StatusOf(ctx, o)
	return o, nil
}

func (s *Server) delete(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	k, err := kindOf(r.PathValue("kind"))
	if err != nil {
		return nil, err
	}
	ref := api.Ref{Kind: k, Name: r.PathValue("name")}
	if _, err := s.object(r.Context(), ref); err != nil {
		return nil, err
	}
	return s.Change(r.Context(), c, userapi.ApplyRequest{Delete: []api.Ref{ref}})
}

func (s *Server) apply(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.ApplyRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return s.Change(r.Context(), c, in)
}

// Change applies a set of resources and deletions, all or none: decoded strictly, completed, validated, checked
// against everything that is stored, written in one transaction, recorded.
func (s *Server) Change(ctx context.Context, c Caller, in userapi.ApplyRequest) (userapi.ApplyResponse, error) {
	var out userapi.ApplyResponse
	stored, err := s.stored(ctx)
	if err != nil {
		return out, err
	}
	next := make(api.ResourceSet, len(stored))
	for ref, o := range stored {
		next[ref] = o
	}
	var put []api.Object
	for i, raw := range in.Objects {
		o, err := decodeObject(i, raw)
		if err != nil {
			return out, err
		}
		change := userapi.Change{Ref: api.RefOf(o), Action: "created"}
		if old := stored[change.Ref]; old != nil {
			if want := o.Meta().Revision; want != 0 && want != old.Meta().Revision {
				return out, api.Errorf(api.Conflict, change.Ref.String(), "changed meanwhile: revision %d, not %d", old.Meta().Revision, want).
					WithHint("livefire get %s %s -o yaml, then apply again", change.Ref.Kind, change.Ref.Name)
			}
			o.Meta().Revision = old.Meta().Revision
			change.Action = "changed"
			if change.Fields = api.Diff(old, o); len(change.Fields) == 0 {
				change.Action = "unchanged"
			}
		}
		if change.Action != "unchanged" {
			put = append(put, o)
		}
		next[change.Ref] = o
		out.Changes = append(out.Changes, change)
	}
	for _, ref := range in.Delete {
		if !operatorKinds[ref.Kind] {
			return out, api.Errorf(api.Denied, ref.String(), "the server alone writes this kind")
		}
		if stored[ref] == nil {
			return out, api.Errorf(api.NotFound, ref.String(), "does not exist")
		}
		delete(next, ref)
		out.Changes = append(out.Changes, userapi.Change{Ref: ref, Action: "deleted"})
	}
	if err := referenceError(api.CheckReferences(next)); err != nil {
		return out, err
	}
	if in.DryRun {
		return out, nil
	}
	return s.write(ctx, c, in.Delete, put, out)
}

func (s *Server) write(ctx context.Context, c Caller, deletes []api.Ref, put []api.Object, out userapi.ApplyResponse) (userapi.ApplyResponse, error) {
	if len(put)+len(deletes) > 0 {
		revision, err := s.cfg.Store.PutObjects(ctx, s.cfg.Fence(), put, deletes)
		if err != nil {
			return out, err
		}
		out.Revision = revision
	}
	for _, ch := range out.Changes {
		if ch.Action == "unchanged" {
			continue
		}
		if err := s.cfg.Calls.Record(ctx, Entry{Kind: record.Changed, Actor: c.Actor(), Subject: ch.Ref.String(),
			Data: record.Resource{Ref: ch.Ref.String(), Action: ch.Action, By: c.Name, Revision: out.Revision}}); err != nil {
			return out, err
		}
	}
	findings, err := s.cfg.Calls.Audit(ctx)
	if err != nil {
		return out, err
	}
	for _, f := range findings {
		if !f.OK {
			out.Findings = append(out.Findings, f)
		}
	}
	return out, nil
}

// stored is everything that an operator wrote, as one set.
func (s *Server) stored(ctx context.Context) (api.ResourceSet, error) {
	items, _, err := s.cfg.Store.List(ctx, store.ResourcePrefix)
	if err != nil {
		return nil, err
	}
	set := make(api.ResourceSet, len(items))
	for _, it := range items {
		o, err := store.DecodeObject(it)
		if err != nil {
			return nil, err
		}
		if operatorKinds[o.TypeOf().Kind] {
			set[api.RefOf(o)] = o
		}
	}
	return set, nil
}

func decodeObject(i int, raw json.RawMessage) (api.Object, error) {
	docs, err := api.Decode("request["+strconv.Itoa(i)+"]", raw)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, api.Errorf(api.Invalid, "request["+strconv.Itoa(i)+"]", "%d documents; one was expected", len(docs))
	}
	o := docs[0].Object
	if !operatorKinds[o.TypeOf().Kind] {
		return nil, api.Errorf(api.Denied, api.RefOf(o).String(), "the server alone writes this kind")
	}
	return o, nil
}

// referenceError makes one error of all that does not fit together.
func referenceError(problems []api.ReferenceProblem) error {
	if len(problems) == 0 {
		return nil
	}
	e := api.Errorf(api.Invalid, "apply", "%d problems; nothing was changed", len(problems))
	for _, p := range problems {
		e.Details = append(e.Details, api.Position{File: p.Ref.String(), Message: p.Path + ": " + p.Message, Hint: p.Hint})
	}
	return e
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	k, err := kindOf(r.URL.Query().Get("kind"))
	if err != nil {
		return nil, err
	}
	return nil, stream(w, r, func(ctx context.Context, emit func(userapi.WatchEvent) error) error {
		return s.cfg.Store.Watch(ctx, store.KindPrefix(k), func(b store.Batch) error {
			return s.emitBatch(ctx, b, emit)
		})
	})
}

func (s *Server) emitBatch(ctx context.Context, b store.Batch, emit func(userapi.WatchEvent) error) error {
	for _, it := range b.Items {
		o, err := store.DecodeObject(it)
		if err != nil {
			return err
		}
		s.cfg.Calls.StatusOf(ctx, o)
		raw, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := emit(userapi.WatchEvent{Type: "object", Ref: api.RefOf(o), Object: raw, Revision: it.Revision}); err != nil {
			return err
		}
	}
	for _, key := range b.Deleted {
		ref, err := store.RefOfKey(key)
		if err != nil {
			return err
		}
		if err := emit(userapi.WatchEvent{Type: "deleted", Ref: ref, Revision: b.Revision}); err != nil {
			return err
		}
	}
	if b.Snapshot {
		return emit(userapi.WatchEvent{Type: "synced", Revision: b.Revision})
	}
	return nil
}
