package identity

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

const (
	minBackoff = time.Second
	maxBackoff = time.Minute
	// look bounds each wait for the renewal: a clock that was set, or a host that slept, is noticed within this time.
	look = time.Minute
)

// Source holds the SVID in force. Every handshake reads it, so a new one is used at once and no connection is dropped for it.
type Source struct {
	current atomic.Pointer[state]
}

type state struct {
	svid    *SVID
	changed chan struct{} // closed when this state is replaced
}

// NewSource starts with an SVID.
func NewSource(v *SVID) *Source {
	s := &Source{}
	s.current.Store(&state{v, make(chan struct{})})
	return s
}

// Current is the SVID in force.
func (s *Source) Current() *SVID { return s.current.Load().svid }

// Next is the SVID in force, and a channel that is closed when another has replaced it.
func (s *Source) Next() (*SVID, <-chan struct{}) {
	st := s.current.Load()
	return st.svid, st.changed
}

// Swap puts another SVID of the same identity in force. Invalid: it is of another identity.
func (s *Source) Swap(v *SVID) error {
	next := &state{v, make(chan struct{})}
	for {
		old := s.current.Load()
		if v.id != old.svid.id {
			return api.Errorf(api.Invalid, v.id.String(), "is not %s, which this process is", old.svid.id)
		}
		if s.current.CompareAndSwap(old, next) {
			close(old.changed)
			return nil
		}
	}
}

// Renewer asks for the next certificate: a request (DER) for a chain and the roots now in force (PEM).
type Renewer func(ctx context.Context, csr []byte) (chainPEM, rootsPEM []byte, err error)

// Renew makes a new key, has it signed, writes both to dir (empty: nowhere) and puts them in force.
func (s *Source) Renew(ctx context.Context, dir string, renew Renewer) error {
	key, err := NewKey()
	if err != nil {
		return err
	}
	csr, err := key.CSR()
	if err != nil {
		return err
	}
	chain, roots, err := renew(ctx, csr)
	if err != nil {
		return fmt.Errorf("renew the certificate of %s: %w", s.Current().id, err)
	}
	v, err := NewSVID(key, chain, roots)
	if err != nil {
		return fmt.Errorf("renew the certificate of %s: %w", s.Current().id, err)
	}
	if dir != "" {
		if err := v.Save(dir); err != nil {
			return err
		}
	}
	return s.Swap(v)
}

// Rotate renews at half of each certificate's life, and again after a pause (1 s to 1 min, doubling) when that fails, until
// ctx ends; it returns ctx's cause.
func (s *Source) Rotate(ctx context.Context, log *slog.Logger, dir string, renew Renewer) error {
	backoff := minBackoff
	for {
		if err := waitUntil(ctx, s.Current().RenewAt()); err != nil {
			return err
		}
		err := s.Renew(ctx, dir, renew)
		if err == nil {
			backoff = minBackoff
			log.Info("certificate renewed", "until", s.Current().NotAfter())
		} else if ctx.Err() == nil {
			log.Warn("certificate not renewed", "until", s.Current().NotAfter(), "err", err)
		}
		// Also after a success: a certificate that is due as soon as it arrives must not become a loop without a pause.
		if err := sleep(ctx, backoff); err != nil {
			return err
		}
		if err != nil {
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

func waitUntil(ctx context.Context, at time.Time) error {
	for {
		left := time.Until(at)
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, look)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
