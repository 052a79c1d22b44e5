package http1

import (
	"errors"
	"io"
)

// ReplayLimit is how much of a request's body is kept so that it can be sent again.
const ReplayLimit = 64 << 10

// ErrBodyTaken ends an attempt's view of a body that a newer attempt has taken over.
var ErrBodyTaken = errors.New("the body belongs to a newer attempt")

// Replay lets several attempts, one after the other, send the same request body. What was read is kept up to
// ReplayLimit; beyond that the body can only be sent once.
type Replay struct {
	src io.Reader
	// turn holds one token: reading waits for the network, so an earlier attempt may still be inside when the next
	// one begins. What it brings is kept for the next.
	turn chan struct{}

	// owned by the holder of the token
	kept []byte
	err  error // of src
	lost bool  // more was read than is kept
	now  *attemptBody
}

// NewReplay makes the body of src replayable.
func NewReplay(src io.Reader) *Replay {
	r := &Replay{src: src, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Attempt is the body from its beginning, for one more attempt; ok is false if its beginning is gone. It waits for a
// read of an earlier attempt, which is bounded by the caller's own connection.
func (r *Replay) Attempt() (body io.ReadCloser, ok bool) {
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	if r.lost {
		return nil, false
	}
	r.now = &attemptBody{replay: r}
	return r.now, true
}

// Whole says whether the body can still be sent from its beginning. A request without a body (nil) always can.
func (r *Replay) Whole() bool {
	if r == nil {
		return true
	}
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	return !r.lost
}

// attemptBody is one attempt's position in the body.
type attemptBody struct {
	replay *Replay
	at     int
}

func (b *attemptBody) Read(p []byte) (int, error) {
	r := b.replay
	<-r.turn
	defer func() { r.turn <- struct{}{} }()
	if r.now != b {
		return 0, ErrBodyTaken
	}
	if b.at < len(r.kept) {
		n := copy(p, r.kept[b.at:])
		b.at += n
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	room := ReplayLimit - len(r.kept)
	if room == 0 || r.lost {
		n, err := r.src.Read(p)
		r.lost = r.lost || n > 0
		r.err = err
		return n, err
	}
	n, err := r.src.Read(p[:min(len(p), room)])
	r.kept = append(r.kept, p[:n]...)
	r.err = err
	b.at += n
	return n, err
}

// Close leaves the source open: it belongs to the server's side of the request.
func (b *attemptBody) Close() error { return nil }
