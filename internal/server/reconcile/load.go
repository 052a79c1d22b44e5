package reconcile

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const leverKey = "/livefire/lever"

// load reads everything that the term before has stored, and takes over what it left open.
func (l *Loop) load(ctx context.Context) error {
	items, _, err := l.cfg.Store.List(ctx, store.ResourcePrefix)
	if err != nil {
		return err
	}
	if err := l.resourcesChanged(ctx, store.Batch{Snapshot: true, Items: items}); err != nil {
		return err
	}
	if err := readJSON(ctx, l.cfg.Store, tableKey, &l.table); err != nil {
		return err
	}
	if err := readJSON(ctx, l.cfg.Store, leverKey, &l.lever); err != nil {
		return err
	}
	regs, _, err := l.cfg.Store.List(ctx, nodesPrefix)
	if err != nil {
		return err
	}
	if err := l.registrationsChanged(ctx, store.Batch{Snapshot: true, Items: regs}); err != nil {
		return err
	}
	if err := l.loadFailover(ctx); err != nil {
		return err
	}
	// The proxies keep the last table; a new server must not know less than they do.
	if l.table.Epoch > 0 {
		l.cfg.XDS.SetTable(l.table)
	}
	if err := l.loadRun(ctx); err != nil {
		return err
	}
	for _, name := range sortedKeys(l.machines) {
		if err := l.stepFailover(ctx, name, failover.Restarted{At: l.cfg.Clock()}); err != nil {
			return err
		}
	}
	return nil
}

// readJSON reads a key into v; a key that is not there leaves v as it is.
func readJSON(ctx context.Context, s *store.Store, key string, v any) error {
	item, err := s.Get(ctx, key)
	if api.KindOf(err) == api.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(item.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w", key, err)
	}
	return nil
}

// Lever is the safety lever as it stands.
func (l *Loop) Lever(ctx context.Context) (out userapi.Lever, err error) {
	err = l.do(ctx, func(context.Context) error {
		out = l.lever
		return nil
	})
	return out, err
}
