package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Prefix is where the log lies in the store.
const Prefix = "/livefire/ledger/"

// Store is what the log needs of the store. *store.Store is one; its contract of errors is binding:
// ErrConflict and ErrFenced mean nothing was written, ErrUncertain that it may have been.
type Store interface {
	Get(ctx context.Context, key string) (store.Item, error)
	List(ctx context.Context, prefix string) ([]store.Item, int64, error)
	Txn(ctx context.Context, f store.Fence, ops ...store.Op) (int64, error)
}

// ErrClosed refuses a record of a run after run.closed.
var ErrClosed = errors.New("the run is closed")

// Config of a Ledger. All fields but Fence and SettleTimeout are required.
type Config struct {
	Store  Store
	Fence  func() store.Fence // of the present term; nil or a zero fence: unfenced
	Signer *evidence.Signer
	Origin string       // of the log: must be the signer's name
	Logger *slog.Logger // attributes: run, err
	// SettleTimeout bounds how long Append goes on asking, after its own context ended, whether an uncertain
	// write happened. Zero means 5 s.
	SettleTimeout time.Duration
}

// Ledger is the log of one installation.
type Ledger struct {
	// Set once.
	cfg Config

	turn chan struct{} // holds one token; who has it appends. A wait for it ends with the context.

	// Owned by who has the turn.
	head  head // may be old: every write compares
	known bool // head was read and no write is in doubt
}

// Open reads the head of the log and checks that it fits the last record.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	switch {
	case cfg.Store == nil || cfg.Signer == nil || cfg.Logger == nil:
		return nil, api.Errorf(api.Invalid, "ledger", "store, signer and logger are required")
	case cfg.Origin != cfg.Signer.Name():
		return nil, api.Errorf(api.Invalid, "ledger", "the signer's key is named %q, the log %q", cfg.Signer.Name(), cfg.Origin).
			WithHint("start the server with the key that this log was begun with")
	}
	if cfg.Fence == nil {
		cfg.Fence = func() store.Fence { return store.Fence{} }
	}
	if cfg.SettleTimeout <= 0 {
		cfg.SettleTimeout = 5 * time.Second
	}
	l := &Ledger{cfg: cfg, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	h, err := l.readHead(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.checkLast(ctx, h); err != nil {
		return nil, err
	}
	l.head, l.known = h, true
	return l, nil
}

// checkLast refuses a log whose head and last record do not belong together.
func (l *Ledger) checkLast(ctx context.Context, h head) error {
	if h.Origin != "" && h.Origin != l.cfg.Origin {
		return api.Errorf(api.Invalid, "ledger", "the log in the store is %q, not %q", h.Origin, l.cfg.Origin).
			WithHint("start the server with the key that this log was begun with")
	}
	if h.Size == 0 {
		return nil
	}
	records, err := l.Range(ctx, h.Size-1, h.Size)
	if err != nil {
		return err
	}
	line, err := records[0].Encode()
	if err != nil {
		return damaged("record %d: %v", h.Size-1, err)
	}
	own, err := l.hashesOf(ctx, h.Size-1)
	if err != nil {
		return err
	}
	if own[0] != evidence.LeafHash(line) || own[len(own)-1] != h.Peaks[len(h.Peaks)-1] {
		return damaged("the head does not fit record %d", h.Size-1)
	}
	return nil
}

func damaged(format string, args ...any) error {
	return api.Errorf(api.Internal, "ledger", "the log is damaged: %s", fmt.Sprintf(format, args...)).
		WithHint("stop the server and restore the store from a snapshot; what was exported stays verifiable")
}

// Checkpoint signs the head as it is in the store now.
func (l *Ledger) Checkpoint(ctx context.Context) ([]byte, error) {
	h, err := l.readHead(ctx)
	if err != nil {
		return nil, err
	}
	return l.sign(h)
}

func (l *Ledger) sign(h head) ([]byte, error) {
	root, err := evidence.TreeHash(h.Size, h)
	if err != nil {
		return nil, damaged("root of %d records: %v", h.Size, err)
	}
	b, err := l.cfg.Signer.Checkpoint(h.Size, root)
	if err != nil {
		return nil, fmt.Errorf("sign the head of %d records: %w", h.Size, err)
	}
	return b, nil
}

// Size is the number of records in the log.
func (l *Ledger) Size(ctx context.Context) (int64, error) {
	h, err := l.readHead(ctx)
	return h.Size, err
}
