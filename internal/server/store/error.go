package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/livefire-mesh/livefire/api"
)

// What a caller branches on, with errors.Is.
var (
	ErrConflict     = errors.New("changed meanwhile")
	ErrFenced       = errors.New("no longer the leader")
	ErrUncertain    = errors.New("may have happened")
	ErrLeaseExpired = errors.New("lease expired")
	ErrCompacted    = errors.New("history no longer kept")
)

// failure is an *api.Error for people that also carries the sentinel or the cause.
type failure struct {
	shown *api.Error
	cause error
}

func (f *failure) Error() string   { return f.shown.Error() }
func (f *failure) Unwrap() []error { return []error{f.shown, f.cause} }

// certain are the refusals of a write that etcd gives before it proposes the write to its members.
var certain = []error{
	rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrNoSpace, rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyRequests,
	rpctypes.ErrEmptyKey, rpctypes.ErrUserEmpty, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthNotEnabled, rpctypes.ErrInvalidAuthToken,
	rpctypes.ErrLeaseNotFound, rpctypes.ErrLeaseTTLTooLarge, rpctypes.ErrLeaseExist, rpctypes.ErrStopped,
}

// writeError classifies the failure of a write. Whatever is not known to be refused may have happened.
func writeError(ctx context.Context, subject string, err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return &failure{api.Errorf(api.Conflict, subject, "its lease has expired"), ErrLeaseExpired}
	}
	for _, c := range certain {
		if errors.Is(err, c) {
			return refused(subject, err)
		}
	}
	if status.Code(err) == codes.ResourceExhausted { // gRPC's own limit on the size of a message, on either side
		return refused(subject, fmt.Errorf("%w: %w", rpctypes.ErrRequestTooLarge, err))
	}
	return &failure{api.Errorf(api.Unavailable, subject, "the write may or may not have happened: %v", reason(ctx, err)).
		WithHint("read it back before you repeat the write"), errors.Join(ErrUncertain, err, context.Cause(ctx))}
}

// readError classifies the failure of a call that changes nothing.
func readError(ctx context.Context, subject string, err error) error {
	if errors.Is(err, rpctypes.ErrCompacted) {
		return &failure{api.Errorf(api.NotFound, subject, "the history of that revision is no longer kept"), errors.Join(ErrCompacted, err)}
	}
	return &failure{api.Errorf(api.Unavailable, subject, "etcd did not answer: %v", reason(ctx, err)), errors.Join(err, context.Cause(ctx))}
}

// refused is a write that surely did not happen.
func refused(subject string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
		return &failure{api.Errorf(api.Invalid, subject, "too large for one transaction: %v", err).
			WithHint("apply fewer objects at once, or start the external etcd with --max-txn-ops=%d --max-request-bytes=%d",
				maxTxnOps, maxRequestBytes), err}
	case errors.Is(err, rpctypes.ErrNoSpace):
		return &failure{api.Errorf(api.Unavailable, subject, "the store is full: %v", err).
			WithHint("compact and defragment etcd, then clear its NOSPACE alarm"), err}
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrInvalidAuthToken):
		return &failure{api.Errorf(api.Denied, subject, "etcd refused the write: %v", err), err}
	default:
		return &failure{api.Errorf(api.Unavailable, subject, "etcd refused the write: %v", err), err}
	}
}

// reason says why a call ended early: the caller's cause before etcd's words.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func conflict(subject string, sentinel error, format string, args ...any) error {
	return &failure{api.Errorf(api.Conflict, subject, "%s", fmt.Sprintf(format, args...)), sentinel}
}
