package probe

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

const (
	aliveEvery = 100 * time.Millisecond
	// ahead is how far in advance the spool says that samples may have been sent: after a crash those without an end
	// are unknown. Longer than a writer is late on a busy host, so that none is sent and not in the account.
	ahead     = 300 * time.Millisecond
	syncEvery = time.Second
	queue     = 16384 // events on their way to the disk
)

// event is something that the book writes down.
type event struct {
	kind   eventKind
	number int64 // of the chunk
	head   opened
	sample sample.Sample
	to     int64 // sealed: first sample that belongs to a later chunk
	last   bool  // sealed: there is no later chunk
}

type eventKind int

const (
	began eventKind = iota
	ended
	sealed
)

// chunk is a second that is not complete: some of its samples may still end.
type chunk struct {
	number int64
	head   opened
	ended  map[int64]sample.Sample
	sealed bool
	last   bool
	fresh  bool  // it has no open file yet
	to     int64 // if sealed, or at the start of a continued probe: first sample after it
	file   *os.File
	dirty  bool
}

// book writes down what the driver and its requests say. It has one goroutine.
type book struct {
	*probe
	events chan event
	chunks map[int64]*chunk
	alive  *os.File
}

func newBook(p *probe) *book {
	return &book{probe: p, events: make(chan event, queue), chunks: map[int64]*chunk{}}
}

// keep writes until the events are closed and every chunk is complete. If ctx ends it leaves the rest in open files.
func (b *book) keep(ctx context.Context, origin time.Time) {
	var err error
	if b.alive, err = os.OpenFile(filepath.Join(b.spool.dir, aliveFile), os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		b.log.Error("probe cannot be continued after a crash", "err", err)
	}
	defer b.closeFiles()
	defer func() {
		if b.alive != nil {
			_ = writeAlive(b.alive, max(time.Since(origin), 0)) // nothing is sent any more; a hint only
		}
	}()
	b.reach(origin)
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	sync := time.NewTicker(syncEvery)
	defer sync.Stop()
	events := b.events
	for events != nil || ctx.Err() == nil && len(b.chunks) > 0 {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				b.completeAll()
				continue
			}
			b.note(e)
		case <-alive.C:
			b.reach(origin)
		case <-sync.C:
			b.sync()
			b.completeAll() // one that could not be written before
		}
	}
}

// reach notes how far the probe will have come before the next note.
func (b *book) reach(origin time.Time) {
	if b.alive != nil {
		_ = writeAlive(b.alive, max(time.Since(origin), 0)+ahead) // the next one is a tenth of a second away
	}
}

func (b *book) closeFiles() {
	b.sync()
	for _, c := range b.chunks {
		if c.file != nil {
			_ = c.file.Close() // synced above
		}
	}
	if b.alive != nil {
		_ = b.alive.Close() // a hint only
	}
}

func (b *book) note(e event) {
	c := b.chunks[e.number]
	if c == nil {
		c = &chunk{number: e.number, ended: map[int64]sample.Sample{}}
		b.chunks[e.number] = c
	}
	switch e.kind {
	case began:
		c.head = e.head
		b.append(c, e.head)
	case ended:
		c.ended[e.sample.Seq] = e.sample
		b.append(c, e.sample)
	case sealed:
		c.sealed, c.to, c.last = true, e.to, e.last
	}
	b.completeIf(c)
}

// append adds a line to the open file. Without it the samples of the chunk would be unknown after a crash, no more.
func (b *book) append(c *chunk, v any) {
	var err error
	if c.file == nil {
		c.file, err = os.OpenFile(b.spool.path(openPrefix, c.number), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	var line []byte
	if err == nil {
		line, err = json.Marshal(v)
	}
	if err == nil {
		_, err = c.file.Write(append(line, '\n'))
	}
	if err != nil {
		b.log.Warn("sample not written to the spool yet", "chunk", c.number, "err", err)
		return
	}
	c.dirty = true
}

func (b *book) sync() {
	for _, c := range b.chunks {
		if c.dirty {
			if err := c.file.Sync(); err != nil {
				b.log.Warn("spool not synced", "chunk", c.number, "err", err)
				continue
			}
			c.dirty = false
		}
	}
}

func (b *book) completeAll() {
	for _, c := range b.chunks {
		b.completeIf(c)
	}
}

// completeIf writes a chunk once every sample of it has ended.
func (b *book) completeIf(c *chunk) {
	from := b.pace.first(c.number)
	if !c.sealed || int64(len(c.ended)) < c.to-from {
		return
	}
	if err := b.spool.writeChunk(b.build(c)); err != nil {
		b.log.Error("chunk not written, tried again", "chunk", c.number, "err", err)
		return
	}
	if c.file != nil {
		_ = c.file.Close() // its name is gone, all is in the chunk
	}
	delete(b.chunks, c.number)
	poke(b.complete)
}

// build makes the chunk as it is uploaded.
func (p *probe) build(c *chunk) sample.Chunk {
	out := sample.Chunk{Header: sample.Header{
		Format: sample.Format, Order: p.order.ID, Service: p.order.Service, From: p.order.From, Rate: p.order.Rate,
		Chunk: c.number, Offset: c.head.Offset, OffsetError: c.head.OffsetError, Last: c.last,
	}}
	for n := p.pace.first(c.number); n < c.to; n++ {
		out.Samples = append(out.Samples, c.ended[n])
	}
	return out
}
