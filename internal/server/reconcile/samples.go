package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// chunkState is how far one probe's samples have come.
type chunkState struct {
	next   int64 // number of the next chunk
	lastAt time.Time
	last   bool
	sums   []string // SHA-256 of each, hex
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// requestPrefix begins every request id that a run's probes send: "<run>." (sample.Sample.Request).
func requestPrefix(run string) string { return run + "." }

// Samples stores one chunk: bytes on disk first, then the record with their digest. Repeating it is harmless.
func (l *Loop) Samples(ctx context.Context, n Node, in nodeapi.Samples, data []byte) error {
	chunk, err := sample.DecodeChunk(data)
	if err != nil {
		return api.Errorf(api.Invalid, in.Order, "chunk %d: %v", in.Chunk, err)
	}
	if chunk.Header.Order != in.Order || chunk.Header.Chunk != in.Chunk || sha256Hex(data) != in.SHA256 {
		return api.Errorf(api.Invalid, in.Order, "the chunk is %d of %s, not what was announced", chunk.Header.Chunk, chunk.Header.Order)
	}
	var file string
	stored := false
	err = l.do(ctx, func(context.Context) error {
		r, st, err := l.expects(n, in.Order, chunk.Header.Service)
		if err != nil {
			return err
		}
		file = l.samplePath(r.id(), chunkFile(in.Order, in.Chunk, in.SHA256))
		stored, err = st.follows(in)
		return err
	})
	if err != nil || stored {
		return err
	}
	// Beside the loop: a slow disk must not delay a decision. Without a record the file means nothing.
	if err := writeDurable(file, data); err != nil {
		return fmt.Errorf("store chunk: %w", err)
	}
	return l.do(ctx, func(ctx context.Context) error {
		r, st, err := l.expects(n, in.Order, chunk.Header.Service)
		if err != nil {
			return err
		}
		if stored, err := st.follows(in); err != nil || stored {
			return err
		}
		c := record.Chunk{Order: in.Order, Service: chunk.Header.Service, Chunk: in.Chunk, SHA256: in.SHA256,
			Bytes: int64(len(data)), Samples: len(chunk.Samples), Last: chunk.Header.Last}
		if _, err := l.commit(ctx, nil, l.entry(record.SampleChunk, "node:"+string(n.ID), in.Order, c)); err != nil {
			return err
		}
		st.next, st.lastAt, st.last, st.sums = in.Chunk+1, l.cfg.Clock(), chunk.Header.Last, append(st.sums, in.SHA256)
		r.addLive(chunk)
		return l.guardrails(ctx, r)
	})
}

// expects is the open run and the probe that a chunk belongs to.
func (l *Loop) expects(n Node, order string, service api.ServiceID) (*run, *chunkState, error) {
	r := l.run
	if r == nil || !r.open() || !r.probes(order) {
		return nil, nil, api.Errorf(api.NotFound, order, "no open run asked for these samples")
	}
	for _, o := range r.machine.Probes() {
		if o.ID == order && (o.From != n.Site || o.Service != service) {
			return nil, nil, api.Errorf(api.Denied, order, "is a probe of %s by the agent of %s, not of %s by that of %s", o.Service, o.From, service, n.Site)
		}
	}
	st := r.chunks[order]
	if st == nil {
		st = &chunkState{}
		r.chunks[order] = st
	}
	return r, st, nil
}

// follows says whether a chunk is stored already; an error if it is not the next one either.
func (st *chunkState) follows(in nodeapi.Samples) (stored bool, err error) {
	switch {
	case in.Chunk > st.next:
		return false, api.Errorf(api.Conflict, in.Order, "chunk %d is missing; this is %d", st.next, in.Chunk)
	case in.Chunk == st.next:
		return false, nil
	case in.Chunk < 0 || in.SHA256 != st.sums[in.Chunk]:
		return false, api.Errorf(api.Conflict, in.Order, "chunk %d was stored with other bytes", in.Chunk)
	}
	return true, nil
}

func (r *run) probes(order string) bool {
	return slices.ContainsFunc(r.machine.Probes(), func(o sample.Order) bool { return o.ID == order })
}

// Executions stores the request ids that one workload executed.
func (l *Loop) Executions(ctx context.Context, n Node, in nodeapi.Executions, data []byte) error {
	ids := strings.Count(string(data), "\n") // one request id per line
	return l.do(ctx, func(ctx context.Context) error {
		r := l.run
		if r == nil || !r.open() || !r.counting || r.expected[in.Workload] != n.ID {
			return api.Errorf(api.NotFound, in.Order, "no open run asked for these executions")
		}
		if r.counted[in.Workload] {
			return nil
		}
		if err := writeDurable(l.samplePath(r.id(), executionsFile(in.Workload, in.SHA256)), data); err != nil {
			return fmt.Errorf("store executions: %w", err)
		}
		e := record.Executed{Workload: in.Workload, Service: in.Service, Site: n.Site, SHA256: in.SHA256, Bytes: int64(len(data)), IDs: ids}
		if _, err := l.commit(ctx, nil, l.entry(record.Executions, "node:"+string(n.ID), in.Workload, e)); err != nil {
			return err
		}
		r.counted[in.Workload] = true
		return nil
	})
}

// chunkFile and executionsFile name files as evidence.SampleFileOf does, so that a bundle takes them as they are.
func chunkFile(order string, chunk int64, sha256 string) string {
	return fmt.Sprintf("%s.%06d.%.16s.jsonl", strings.ReplaceAll(order, "/", "."), chunk, sha256)
}

func executionsFile(workload, sha256 string) string {
	return fmt.Sprintf("executed.%s.%.16s.txt", workload, sha256)
}

func (l *Loop) samplePath(run, file string) string {
	return filepath.Join(l.cfg.Dir, "samples", run, file)
}

// writeDurable writes a file that is whole or not there.
func writeDurable(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone after the rename
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// addLive adds a chunk's second to what watchers see and guardrails judge.
func (r *run) addLive(c sample.Chunk) {
	if len(c.Samples) == 0 {
		return
	}
	v := userapi.Live{Service: c.Header.Service, At: c.Samples[0].Intended.Add(-c.Header.Offset).Truncate(time.Second), OK: map[api.SiteID]int64{}}
	var answered []time.Duration
	for _, s := range c.Samples {
		switch {
		case s.Class == sample.OK && s.Attempts > 1:
			v.RetriedOK++
			answered = append(answered, s.End)
		case s.Class == sample.OK:
			v.OK[s.Site]++
			answered = append(answered, s.End)
		case s.Class == sample.Shed:
			v.Shed++
		default:
			v.Failed++
		}
	}
	slices.Sort(answered)
	if n := len(answered); n > 0 {
		v.P99 = float64(answered[min((99*n+99)/100, n)-1]) / float64(time.Millisecond)
	}
	r.live = append(r.live, v)
}

// guardrails ends the run if a service that it must not touch suffers.
func (l *Loop) guardrails(ctx context.Context, r *run) error {
	if r.state() != drill.Injecting && r.state() != drill.Holding {
		return nil
	}
	now := l.cfg.Clock()
	for _, g := range r.parsed.Drill.Spec.Guardrails {
		var good, all int64
		for _, v := range r.live {
			if v.Service != g.Service || now.Sub(v.At) > g.Over.D() {
				continue
			}
			ok := v.RetriedOK
			for _, n := range v.OK {
				ok += n
			}
			good, all = good+ok, all+ok+v.Failed
		}
		if all == 0 || float64(good)/float64(all) >= g.Success.Min {
			continue
		}
		why := fmt.Sprintf("%s: success %.2f %% over %v, below %.2f %%", g.Service, 100*float64(good)/float64(all), g.Over, 100*g.Success.Min)
		return l.stepRun(ctx, drill.Event{Kind: drill.GuardrailTripped, Service: g.Service, Rule: "success", Reason: why})
	}
	return nil
}

// loadChunks finds out from the log how far the stored samples of a run go.
func (l *Loop) loadChunks(ctx context.Context, r *run) error {
	records, err := l.cfg.Ledger.Records(ctx, r.id())
	if err != nil {
		return err
	}
	for _, o := range r.machine.Probes() {
		r.chunks[o.ID] = &chunkState{lastAt: l.cfg.Clock()}
	}
	for _, rec := range records {
		if rec.Kind != string(record.SampleChunk) {
			continue
		}
		var c record.Chunk
		if err := json.Unmarshal(rec.Data, &c); err != nil {
			return fmt.Errorf("record %d: %w", rec.Index, err)
		}
		st := r.chunks[c.Order]
		if st == nil {
			continue // of an earlier attempt
		}
		st.next, st.last, st.sums = c.Chunk+1, c.Last, append(st.sums, c.SHA256)
		b, err := os.ReadFile(l.samplePath(r.id(), chunkFile(c.Order, c.Chunk, c.SHA256)))
		if err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		chunk, err := sample.DecodeChunk(b)
		if err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		r.addLive(chunk)
	}
	return nil
}
