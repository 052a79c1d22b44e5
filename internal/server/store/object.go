package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/livefire-mesh/livefire/api"
)

const (
	// ResourcePrefix holds every resource as JSON, under <Kind>/<name>.
	ResourcePrefix = "/livefire/resources/"
	// NodePrefix holds the registration of every node that lives, by its name and under its lease.
	NodePrefix = "/livefire/nodes/"
)

// object says that *T is a resource, so that callers write GetObject[api.Service].
type object[T any] interface {
	*T
	api.Object
}

// KindPrefix holds every resource of one kind.
func KindPrefix(k api.Kind) string { return ResourcePrefix + string(k) + "/" }

// GetObject is one resource, with Metadata.Revision as the store has it. NotFound: there is none.
func GetObject[T any, P object[T]](ctx context.Context, s *Store, name string) (P, error) {
	ref := api.Ref{Kind: P(new(T)).TypeOf().Kind, Name: name}
	key, err := resourceKey(ref)
	if err != nil {
		return nil, err
	}
	item, err := s.Get(ctx, key)
	if api.KindOf(err) == api.NotFound {
		return nil, notFound(ref)
	}
	if err != nil {
		return nil, err
	}
	return decode[T, P](item)
}

// ListObjects is every resource of a kind, sorted by name, and the revision at which they all held.
func ListObjects[T any, P object[T]](ctx context.Context, s *Store) ([]P, int64, error) {
	items, revision, err := s.List(ctx, KindPrefix(P(new(T)).TypeOf().Kind))
	if err != nil {
		return nil, 0, err
	}
	out := make([]P, len(items))
	for i, item := range items {
		if out[i], err = decode[T, P](item); err != nil {
			return nil, 0, err
		}
	}
	return out, revision, nil
}

// PutObject writes one resource and sets its Metadata.Revision to the one returned. A Metadata.Revision of zero overwrites
// whatever is there; any other must equal the stored one (ErrConflict). Errors as of Txn.
func (s *Store) PutObject(ctx context.Context, f Fence, o api.Object) (int64, error) {
	return s.PutObjects(ctx, f, []api.Object{o}, nil)
}

// CreateObject writes a resource that must not exist yet (ErrConflict).
func (s *Store) CreateObject(ctx context.Context, f Fence, o api.Object) (int64, error) {
	op, err := putOp(o)
	if err != nil {
		return 0, err
	}
	op.IfRevision = NotExisting
	return s.putAll(ctx, f, []api.Object{o}, []Op{op})
}

// PutObjects writes and deletes a whole set in one transaction: all or nothing. Each object as in PutObject; a reference
// to delete that does not exist is no error. Nothing may be named twice.
func (s *Store) PutObjects(ctx context.Context, f Fence, objects []api.Object, deletes []api.Ref) (int64, error) {
	ops := make([]Op, 0, len(objects)+len(deletes))
	for _, o := range objects {
		op, err := putOp(o)
		if err != nil {
			return 0, err
		}
		ops = append(ops, op)
	}
	for _, ref := range deletes {
		key, err := resourceKey(ref)
		if err != nil {
			return 0, err
		}
		ops = append(ops, Op{Key: key, Delete: true, IfRevision: AnyRevision})
	}
	return s.putAll(ctx, f, objects, ops)
}

func (s *Store) putAll(ctx context.Context, f Fence, objects []api.Object, ops []Op) (int64, error) {
	revision, err := s.Txn(ctx, f, ops...)
	if err != nil {
		return 0, err
	}
	for _, o := range objects {
		o.Meta().Revision = revision
	}
	return revision, nil
}

// DeleteObject deletes one resource; revision as in PutObject. NotFound: there is none.
func (s *Store) DeleteObject(ctx context.Context, f Fence, ref api.Ref, revision int64) (int64, error) {
	key, err := resourceKey(ref)
	if err != nil {
		return 0, err
	}
	if _, err := s.Get(ctx, key); api.KindOf(err) == api.NotFound {
		return 0, notFound(ref)
	} else if err != nil {
		return 0, err
	}
	if revision == 0 {
		revision = AnyRevision
	}
	return s.Txn(ctx, f, Op{Key: key, Delete: true, IfRevision: revision})
}

// DecodeObject is the resource that an item under ResourcePrefix holds; for watchers of several kinds.
func DecodeObject(item Item) (api.Object, error) {
	ref, err := RefOfKey(item.Key)
	if err != nil {
		return nil, err
	}
	o, err := api.New(ref.Kind)
	if err != nil {
		return nil, fmt.Errorf("read %s, which a newer livefire may have written: %w", item.Key, err)
	}
	return o, decodeInto(item, o)
}

// RefOfKey is the resource that a key names; for the deleted keys of a Batch.
func RefOfKey(key string) (api.Ref, error) {
	rest, ok := strings.CutPrefix(key, ResourcePrefix)
	kind, name, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || kind == "" || name == "" || strings.Contains(name, "/") {
		return api.Ref{}, api.Errorf(api.Invalid, key, "is not the key of a resource")
	}
	return api.Ref{Kind: api.Kind(kind), Name: name}, nil
}

func decode[T any, P object[T]](item Item) (P, error) {
	o := P(new(T))
	return o, decodeInto(item, o)
}

// decodeInto tolerates unknown fields: a newer server of the same format may have written them.
func decodeInto(item Item, o api.Object) error {
	if err := json.Unmarshal(item.Value, o); err != nil {
		return fmt.Errorf("read %s at revision %d: %w", item.Key, item.Revision, err)
	}
	o.Meta().Revision = item.Revision
	return nil
}

// ObjectOp is the write of one resource, for a transaction with other writes; Metadata.Revision as in PutObject.
func ObjectOp(o api.Object) (Op, error) { return putOp(o) }

// putOp encodes an object without its revision: the store's own is the truth.
func putOp(o api.Object) (Op, error) {
	key, err := resourceKey(api.RefOf(o))
	if err != nil {
		return Op{}, err
	}
	meta := o.Meta()
	condition := meta.Revision
	meta.Revision = 0
	value, err := encode(o)
	meta.Revision = condition
	if err != nil {
		return Op{}, fmt.Errorf("encode %s: %w", api.RefOf(o), err)
	}
	if condition == 0 {
		condition = AnyRevision
	}
	return Op{Key: key, Value: value, IfRevision: condition}, nil
}

// encode defaults an object that never was, which shows in a kind that is not written: whoever reads it may rely on both.
func encode(o api.Object) ([]byte, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var written api.Type
	if err := json.Unmarshal(b, &written); err != nil {
		return nil, err
	}
	if written == o.TypeOf() {
		return b, nil
	}
	o.Default()
	return json.Marshal(o)
}

func resourceKey(ref api.Ref) (string, error) {
	if ref.Kind == "" || ref.Name == "" || strings.Contains(string(ref.Kind)+ref.Name, "/") {
		return "", api.Errorf(api.Invalid, ref.String(), "is not the name of a resource")
	}
	return KindPrefix(ref.Kind) + ref.Name, nil
}

func notFound(ref api.Ref) error { return api.Errorf(api.NotFound, ref.String(), "does not exist") }
