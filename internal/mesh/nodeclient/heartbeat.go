package nodeclient

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

const (
	// heartbeatEvery keeps a registration lease of 3 s with two spare beats.
	heartbeatEvery = time.Second
	// The first beats come faster: a clock offset is only as good as the best of several exchanges.
	firstBeats     = window
	firstBeatEvery = 125 * time.Millisecond
)

// Heartbeats sends a heartbeat each second (the first ones faster) until ctx ends, and at once when beat is signalled.
//
// fill completes the message with what the node has to say of itself; answered (optional) gets each answer.
// A heartbeat that fails is not repeated: the next one comes within a second.
func (c *Client) Heartbeats(ctx context.Context, clock *Clock, log *slog.Logger, beat <-chan struct{},
	fill func(*nodeapi.Heartbeat), answered func(nodeapi.HeartbeatResponse)) error {
	tick := time.NewTicker(firstBeatEvery)
	defer tick.Stop()
	failing := false
	for n := 1; ; n++ {
		if n == firstBeats {
			tick.Reset(heartbeatEvery)
		}
		resp, err := c.heartbeat(ctx, clock, fill)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !failing:
			failing = true
			log.Warn("heartbeat not answered", "err", err)
		case err == nil && failing:
			failing = false
			log.Info("heartbeat answered again")
		}
		if err == nil && answered != nil {
			answered(resp)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-beat:
		}
	}
}

func (c *Client) heartbeat(ctx context.Context, clock *Clock, fill func(*nodeapi.Heartbeat)) (nodeapi.HeartbeatResponse, error) {
	// An answer that takes longer than a beat is of no use, and must not delay the next.
	ctx, cancel := context.WithTimeout(ctx, heartbeatEvery)
	defer cancel()
	var h nodeapi.Heartbeat
	h.ClockOffset, h.ClockError, _ = clock.Offset()
	fill(&h)
	var resp nodeapi.HeartbeatResponse
	h.Sent = time.Now().UTC()
	if err := c.post(ctx, c.path("heartbeat"), h, &resp); err != nil {
		return resp, fmt.Errorf("heartbeat: %w", err)
	}
	clock.Add(h.Sent, resp.Received, resp.Replied, time.Now().UTC())
	return resp, nil
}
