package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsclient"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// counter answers orders to list the request ids that workloads executed.
type counter struct {
	agent *agent
	wake  chan struct{}

	mu     sync.Mutex
	wanted map[string]xds.Count // guarded by mu; by order name
	done   map[string]bool      // guarded by mu; "<order>/<workload>" that the server has taken
}

func (c *counter) order(ev xdsclient.OrderEvent) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ev.Removed:
		delete(c.wanted, ev.Name)
		return nil
	case ev.Heartbeat:
		if _, ok := c.wanted[ev.Name]; !ok {
			return fmt.Errorf("order %s is not in force here", ev.Name)
		}
		return nil
	}
	o, err := xds.ReadCountOrder(ev.Body)
	if err != nil {
		return err
	}
	c.wanted[ev.Name] = o
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// run answers orders until ctx ends; what no server takes is sent again while the order is in force.
func (c *counter) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		case <-tick.C:
		}
		c.mu.Lock()
		orders := make([]xds.Count, 0, len(c.wanted))
		for _, o := range c.wanted {
			orders = append(orders, o)
		}
		c.mu.Unlock()
		for _, o := range orders {
			c.answer(ctx, o)
		}
	}
}

func (c *counter) answer(ctx context.Context, o xds.Count) {
	for _, w := range c.agent.placed {
		key := o.ID + "/" + w.Name
		c.mu.Lock()
		done := c.done[key]
		c.mu.Unlock()
		if w.RequestLog == "" || done {
			continue
		}
		if err := c.upload(ctx, o, w); err != nil {
			c.agent.cfg.Logger.Warn("executions not counted", "order", o.ID, "workload", w.Name, "err", err)
			if kind := api.KindOf(err); kind == api.Unavailable || kind == api.Internal {
				continue
			}
		}
		c.mu.Lock()
		c.done[key] = true
		c.mu.Unlock()
	}
}

func (c *counter) upload(ctx context.Context, o xds.Count, w placed) error {
	ids, err := executed(w.RequestLog, o.Prefix)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.agent.member.Client.Executions(call, nodeapi.Executions{Order: o.ID, Workload: w.Name, Service: w.Service, SHA256: sha256Hex(ids)}, ids)
}

// executed is every id with the prefix, one per line, in the order of execution.
func executed(path, prefix string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []byte{}, nil // it has executed nothing yet
	}
	if err != nil {
		return nil, fmt.Errorf("read request log: %w", err)
	}
	defer f.Close()
	var out bytes.Buffer
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), prefix) {
			out.WriteString(lines.Text())
			out.WriteByte('\n')
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read request log: %w", err)
	}
	return out.Bytes(), nil
}
