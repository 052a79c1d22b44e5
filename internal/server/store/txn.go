package store

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/livefire-mesh/livefire/api"
)

// Values of Op.IfRevision with a meaning of their own.
const (
	AnyRevision = -1 // whatever is there
	NotExisting = 0  // the key must not exist
)

// Op is one change within a transaction. Its zero IfRevision means "must not exist".
type Op struct {
	Key        string
	Value      []byte
	Delete     bool
	IfRevision int64   // AnyRevision, NotExisting, or the Item.Revision that must still be the key's
	Lease      LeaseID // the key ends with this lease; zero: with none
}

// Fence is the proof of one election: the candidate's key and the revision at which it was made. The zero value is no fence.
type Fence struct {
	key      string
	revision int64
}

// IsZero reports that f fences nothing.
func (f Fence) IsZero() bool { return f == Fence{} }

// Revision grows with every election on the same store; zero for the zero fence.
func (f Fence) Revision() int64 { return f.revision }

// Get is one item, read through the quorum. NotFound: there is none.
func (s *Store) Get(ctx context.Context, key string) (Item, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, key)
	if err != nil {
		return Item{}, readError(ctx, key, err)
	}
	if len(resp.Kvs) == 0 {
		return Item{}, api.Errorf(api.NotFound, key, "does not exist")
	}
	return itemOf(resp.Kvs[0]), nil
}

// List is every item under a prefix, sorted by key, and the revision of the store at which they all held.
func (s *Store) List(ctx context.Context, prefix string) ([]Item, int64, error) {
	return s.list(ctx, prefix, 0)
}

// ListAt is List as it was at an older revision. ErrCompacted: that history is no longer kept.
func (s *Store) ListAt(ctx context.Context, prefix string, revision int64) ([]Item, error) {
	if revision <= 0 {
		return nil, api.Errorf(api.Invalid, prefix, "revision %d is not positive", revision)
	}
	items, _, err := s.list(ctx, prefix, revision)
	return items, err
}

func (s *Store) list(ctx context.Context, prefix string, revision int64) ([]Item, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		return nil, 0, readError(ctx, prefix, err)
	}
	items := make([]Item, len(resp.Kvs)) // etcd returns a range sorted by key
	for i, kv := range resp.Kvs {
		items[i] = itemOf(kv)
	}
	return items, resp.Header.Revision, nil
}

// Txn makes all changes, or none, and returns the revision at which they were made. With a fence it succeeds only while
// that election still holds; without changes it only asks whether it does.
// ErrFenced: the election is over. ErrConflict: a key is not at its IfRevision. ErrLeaseExpired: a lease of an op is gone.
// In these cases, and when the kind is not Unavailable, nothing was changed. ErrUncertain: it may have happened.
func (s *Store) Txn(ctx context.Context, f Fence, ops ...Op) (int64, error) {
	if err := checkOps(ops); err != nil {
		return 0, err
	}
	subject := "transaction"
	if len(ops) == 1 {
		subject = ops[0].Key
	}
	if err := context.Cause(ctx); err != nil { // before anything was sent: surely did not happen
		return 0, &failure{api.Errorf(api.Unavailable, subject, "not written: %v", err), err}
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conditions, changes, reads := plan(f, ops)
	resp, err := s.client.Txn(ctx).If(conditions...).Then(changes...).Else(reads...).Commit()
	if err != nil {
		return 0, writeError(ctx, subject, err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	var found []*mvccpb.KeyValue // what each read found, nil for nothing
	for _, r := range resp.Responses {
		found = append(found, first(r.GetResponseRange().GetKvs()))
	}
	return 0, whyNot(f, ops, found)
}

func checkOps(ops []Op) error {
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		switch {
		case op.Key == "":
			return api.Errorf(api.Invalid, "transaction", "a change has no key")
		case seen[op.Key]:
			return api.Errorf(api.Invalid, op.Key, "changed twice in one transaction")
		case op.IfRevision < AnyRevision:
			return api.Errorf(api.Invalid, op.Key, "revision %d does not exist", op.IfRevision)
		}
		seen[op.Key] = true
	}
	return nil
}

// plan translates the fence and the changes. The reads, made only when a condition fails, find out which one.
func plan(f Fence, ops []Op) (conditions []clientv3.Cmp, changes, reads []clientv3.Op) {
	if !f.IsZero() {
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(f.key), "=", f.revision))
		reads = append(reads, clientv3.OpGet(f.key, clientv3.WithKeysOnly()))
	}
	for _, op := range ops {
		if op.Delete {
			changes = append(changes, clientv3.OpDelete(op.Key))
		} else {
			changes = append(changes, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		}
		if op.IfRevision >= 0 {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(op.Key), "=", op.IfRevision))
			reads = append(reads, clientv3.OpGet(op.Key, clientv3.WithKeysOnly()))
		}
	}
	return conditions, changes, reads
}

// whyNot names the first condition that failed, in the order of plan.
func whyNot(f Fence, ops []Op, found []*mvccpb.KeyValue) error {
	if !f.IsZero() {
		if found[0].GetCreateRevision() != f.revision {
			return conflict(f.key, ErrFenced, "not written: the election of revision %d is over", f.revision)
		}
		found = found[1:]
	}
	for _, op := range ops {
		if op.IfRevision < 0 {
			continue
		}
		at := found[0].GetModRevision()
		found = found[1:]
		switch {
		case at == op.IfRevision:
		case op.IfRevision == NotExisting:
			return conflict(op.Key, ErrConflict, "exists already, at revision %d", at)
		case at == 0:
			return conflict(op.Key, ErrConflict, "was deleted after revision %d", op.IfRevision)
		default:
			return conflict(op.Key, ErrConflict, "is at revision %d, not %d", at, op.IfRevision)
		}
	}
	panic("internal error: a transaction failed though every condition held")
}

func first(kvs []*mvccpb.KeyValue) *mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

func itemOf(kv *mvccpb.KeyValue) Item {
	return Item{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision, CreateRevision: kv.CreateRevision, Lease: LeaseID(kv.Lease)}
}
