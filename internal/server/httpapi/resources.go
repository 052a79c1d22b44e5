package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
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
	var at int64
	if q := r.URL.Query().Get("revision"); q != "" {
		if at, err = strconv.ParseInt(q, 10, 64); err != nil || at <= 0 {
			return nil, api.Errorf(api.Invalid, "revision", "%q is not a revision", q)
		}
	}
	return s.change(r.Context(), c, userapi.ApplyRequest{Delete: []api.Ref{ref}}, at)
}

func (s *Server) apply(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.ApplyRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return s.Change(r.Context(), c, in)
}

// Change applies a set of resources and deletions, all or none: decoded strictly, completed, validated, checked
// against everything that is stored, written and recorded in one transaction.
func (s *Server) Change(ctx context.Context, c Caller, in userapi.ApplyRequest) (userapi.ApplyResponse, error) {
	return s.change(ctx, c, in, 0)
}

// change repeats a change that another one has overtaken: what it was checked against no longer holds. A revision other
// than zero must be that of what is deleted.
func (s *Server) change(ctx context.Context, c Caller, in userapi.ApplyRequest, revision int64) (userapi.ApplyResponse, error) {
	for range changeAttempts {
		p, err := s.planChange(ctx, in, revision)
		if err != nil || in.DryRun {
			return p.out, err
		}
		err = s.writeChange(ctx, c, &p)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return userapi.ApplyResponse{}, err
		}
		s.addFindings(ctx, &p.out)
		return p.out, nil
	}
	return userapi.ApplyResponse{}, api.Errorf(api.Conflict, "apply", "others changed resources at the same time, %d times", changeAttempts).WithHint("try again")
}

const (
	changeAttempts = 5
	// changesKey is written by every change of resources: what one was checked against cannot change under it.
	changesKey = "/livefire/accounts/changes"
	// recordEach is how many changes of one request get a record each; more share one.
	recordEach = 20
)

// planned is a change that was checked against what is stored.
type planned struct {
	out     userapi.ApplyResponse
	writes  []store.Op
	records []record.Resource
}

func (s *Server) planChange(ctx context.Context, in userapi.ApplyRequest, revision int64) (planned, error) {
	var p planned
	guard := int64(store.NotExisting)
	item, err := s.cfg.Store.Get(ctx, changesKey)
	switch {
	case err == nil:
		guard = item.Revision
	case api.KindOf(err) != api.NotFound:
		return p, err
	}
	stored, err := s.stored(ctx) // after the guard: what is newer is refused with it
	if err != nil {
		return p, err
	}
	next := maps.Clone(stored)
	named := map[api.Ref]bool{}
	for i, raw := range in.Objects {
		o, err := decodeObject(i, raw)
		if err != nil {
			return p, err
		}
		ref := api.RefOf(o)
		if named[ref] {
			return p, api.Errorf(api.Invalid, ref.String(), "is there twice in one request")
		}
		named[ref] = true
		if err := p.put(stored[ref], o); err != nil {
			return p, err
		}
		next[ref] = o
	}
	for _, ref := range in.Delete {
		switch {
		case !operatorKinds[ref.Kind]:
			return p, api.Errorf(api.Denied, ref.String(), "the server alone writes this kind")
		case named[ref]:
			return p, api.Errorf(api.Invalid, ref.String(), "is there twice in one request")
		case stored[ref] == nil:
			return p, api.Errorf(api.NotFound, ref.String(), "does not exist").WithHint("livefire get %s", ref.Kind)
		}
		named[ref] = true
		at := stored[ref].Meta().Revision
		if revision != 0 && revision != at {
			return p, overtaken(ref, at, revision)
		}
		delete(next, ref)
		p.writes = append(p.writes, store.Op{Key: store.KindPrefix(ref.Kind) + ref.Name, Delete: true, IfRevision: at})
		p.note(userapi.Change{Ref: ref, Action: "deleted"}, at, nil)
	}
	if len(p.writes) > 0 {
		p.writes = append(p.writes, store.Op{Key: changesKey, Value: []byte("{}"), IfRevision: guard})
	}
	return p, referenceError(api.CheckReferences(next))
}

// put plans the write of one object over what is stored, nil if nothing is.
func (p *planned) put(old, o api.Object) error {
	ref, want := api.RefOf(o), o.Meta().Revision
	change := userapi.Change{Ref: ref, Action: "created"}
	at := int64(0)
	if old != nil {
		at = old.Meta().Revision
		change.Action, change.Fields = "changed", api.Diff(old, o)
	}
	if want != 0 && want != at {
		return overtaken(ref, at, want)
	}
	if old != nil && len(change.Fields) == 0 {
		p.out.Changes = append(p.out.Changes, userapi.Change{Ref: ref, Action: "unchanged"})
		return nil
	}
	op, err := store.ObjectOp(o)
	if err != nil {
		return err
	}
	op.IfRevision = at // zero: must not exist
	p.writes = append(p.writes, op)
	p.note(change, at, op.Value)
	return nil
}

func (p *planned) note(c userapi.Change, at int64, value []byte) {
	r := record.Resource{Ref: c.Ref.String(), Action: c.Action, Revision: at}
	if value != nil {
		r.SHA256 = sha256Hex(value)
	}
	p.out.Changes, p.records = append(p.out.Changes, c), append(p.records, r)
}

func overtaken(ref api.Ref, at, want int64) error {
	hint := "livefire get %s %s -o yaml, then apply again"
	if at == 0 {
		return api.Errorf(api.Conflict, ref.String(), "was deleted after revision %d", want).WithHint(hint, ref.Kind, ref.Name)
	}
	return api.Errorf(api.Conflict, ref.String(), "changed meanwhile: revision %d, not %d", at, want).WithHint(hint, ref.Kind, ref.Name)
}

func (s *Server) writeChange(ctx context.Context, c Caller, p *planned) error {
	if len(p.writes) == 0 {
		return nil
	}
	for i := range p.records {
		p.records[i].By = c.Name
	}
	var entries []Entry
	if len(p.records) <= recordEach {
		for _, r := range p.records {
			entries = append(entries, Entry{Kind: record.Changed, Actor: c.Actor(), Subject: r.Ref, Data: r})
		}
	} else { // so many records would not fit one transaction
		whole := p.records[0]
		whole.More = p.records[1:]
		entries = []Entry{{Kind: record.Changed, Actor: c.Actor(), Subject: whole.Ref, Data: whole}}
	}
	if err := s.commit(ctx, p.writes, entries...); err != nil {
		return err
	}
	if item, err := s.cfg.Store.Get(ctx, changesKey); err == nil { // of this change, or of one after it
		p.out.Revision = item.Revision
	}
	return nil
}

// addFindings shows what the audit says with the change in force. The change is made, whatever becomes of this.
func (s *Server) addFindings(ctx context.Context, out *userapi.ApplyResponse) {
	findings, err := s.cfg.Calls.Audit(ctx)
	if err != nil {
		s.cfg.Logger.Warn("no audit after a change", "err", err)
		return
	}
	for _, f := range findings {
		if !f.OK {
			out.Findings = append(out.Findings, f)
		}
	}
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
	var written struct {
		api.Type
		Metadata struct{ Name string }
	}
	// Whose kind it is comes before whether it is right; what cannot be read here is refused below, with its position.
	if json.Unmarshal(raw, &written) == nil && slices.Contains(api.Kinds(), written.Kind) && !operatorKinds[written.Kind] {
		return nil, api.Errorf(api.Denied, string(written.Kind)+"/"+written.Metadata.Name, "the server alone writes this kind")
	}
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
