package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Back-off of uploads that fail.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
)

// upload brings the chunks of a probe to the server, in order, until the last one is there or ctx ends.
func (p *probe) upload(ctx context.Context) {
	for {
		k, ok := p.spool.next()
		if ok {
			last, done := p.uploadOne(ctx, k)
			switch {
			case !done:
				return // ctx ended
			case last:
				p.finish()
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.complete:
		}
	}
}

// uploadOne tries until the chunk is there. A chunk that the server will never take is put aside, so that it does not
// hold up the others.
func (p *probe) uploadOne(ctx context.Context, k int64) (last, done bool) {
	for delay := minRetry; ; delay = min(2*delay, maxRetry) {
		data, err := os.ReadFile(p.spool.path(chunkPrefix, k))
		if err == nil {
			err = p.cfg.Upload(ctx, p.order.ID, k, data)
		}
		to := sentPrefix
		switch kind := api.KindOf(err); {
		case err != nil && (kind == api.Invalid || kind == api.Conflict):
			p.log.Error("chunk refused by the server, put aside", "chunk", k, "err", err)
			to, err = refusedPrefix, nil
		case err != nil && ctx.Err() == nil:
			p.log.Warn("chunk not uploaded, tried again", "chunk", k, "err", err)
		}
		if err == nil {
			err = os.Rename(p.spool.path(chunkPrefix, k), p.spool.path(to, k))
		}
		if err == nil {
			return isLast(data), true
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, false
		case <-timer.C:
		}
	}
}

// finish forgets a probe that is over, but for the fact that it is.
func (p *probe) finish() {
	p.mu.Lock()
	p.meta.Finished = time.Now().UTC().Round(0)
	p.mu.Unlock()
	// First the fact, then the files: an empty spool of a probe that has not finished would be closed once more.
	err := p.save()
	if err == nil {
		err = p.spool.clear()
	}
	if err != nil {
		p.log.Warn("spool not cleared", "err", err)
	}
	p.mu.Lock()
	delete(p.probes, p.order.ID)
	p.mu.Unlock()
}

// isLast reads the header of a chunk.
func isLast(data []byte) bool {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	var h sample.Header
	return json.Unmarshal(line, &h) == nil && h.Last
}

// isLast says whether chunk k is complete and the last.
func (sp spool) isLast(k int64) bool {
	for _, prefix := range []string{chunkPrefix, sentPrefix, refusedPrefix} {
		if b, err := os.ReadFile(sp.path(prefix, k)); err == nil {
			return isLast(b)
		}
	}
	return false
}
