// Package demo runs the main job on one machine: a server, three sites with real processes, a drill, a report.
//
// Run starts the real binary's processes and uses the API like any other program; the product does not know it. Every
// process gets the read end of a lifetime pipe: when the demo dies, however it dies, everything ends.
//
// Units: durations are time.Duration. Errors: *api.Error for what a user must change.
// Concurrency: Run blocks until everything that it started is gone.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
)

// Options of a demo.
type Options struct {
	Scenario string            // default site-loss
	Set      map[string]string // scenario parameters and settings, see Settings
	Dir      string            // default livefire-demo/<time>; must not exist
	Keep     bool              // stay until the context ends
	Fix      bool              // apply the first finding's change and run the drill again
	JSON     bool              // print the report as JSON instead of text
	Style    view.Style
	Out      io.Writer // the result
	Progress io.Writer // what happens
}

// restoreLimit bounds what is done after an interruption: the longest lease of the demo, its proof, the fail-back.
const restoreLimit = 90 * time.Second

// Result of a demo.
type Result struct {
	Dir     string
	Verdict string // of the last run
	Expect  string
	Run     string
}

// demo is one demonstration on its way.
type demo struct {
	opts   Options
	dir    string
	bin    string
	life   *lifetime
	procs  *processes
	admin  *client.Client
	people []person
	plan   plan
	// the server's ports, which nobody else on this host may be given
	reserved []freeport.Reservation
	state    string // demo.json as it was last written
}

// Run is the demo from start to end. An error of ctx means that it was interrupted and has restored everything.
func Run(ctx context.Context, opts Options) (res Result, err error) {
	d := &demo{opts: opts}
	if d.plan, err = newPlan(opts.Scenario, opts.Set); err != nil {
		return res, err
	}
	if err := d.prepare(); err != nil {
		return res, err
	}
	res.Dir = d.dir
	// What must still be done after an interruption (abort, restore) has its own time, from then on.
	after, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(restoreLimit, cancel) })()
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreLimit)
		defer cancel()
		if stopErr := d.stop(clean); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
	}()
	if err := d.start(ctx); err != nil {
		return res, err
	}
	res.Expect = d.plan.expect
	if res.Run, res.Verdict, err = d.drill(ctx, after); err != nil {
		return res, err
	}
	if d.opts.Fix {
		if res.Run, res.Verdict, err = d.fix(ctx, after, res.Run, res.Verdict); err != nil {
			return res, err
		}
	}
	if d.opts.Keep {
		d.say("\nThe mesh goes on until Ctrl-C. From another terminal:\n  export PATH=%s:$PATH LIVEFIRE_CONTEXT=%s\n  livefire status -w\n  livefire drill run %s\n  livefire --context %s drill approve RUN --as security   # and dev1, ops1 for their groups\n",
			filepath.Dir(d.bin), d.contextPath(), d.plan.drill, filepath.Join(d.dir, "people", "sec1.yaml"))
		if err := d.keepState(ctx); err != nil {
			return res, err
		}
		return res, ctx.Err()
	}
	return res, nil
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.opts.Progress, format, args...) }

func (d *demo) contextPath() string { return filepath.Join(d.dir, "context.yaml") }

// prepare makes the directory and copies this executable into it: what `go run` built is gone when it ends.
func (d *demo) prepare() error {
	d.dir = d.opts.Dir
	if d.dir == "" {
		d.dir = filepath.Join("livefire-demo", time.Now().UTC().Format("20060102-150405"))
	}
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(d.dir), 0o755); err != nil {
		return api.Errorf(api.Invalid, d.dir, "%v", err)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return api.Errorf(api.Invalid, d.dir, "a demo directory is made new and never used again: %v", err).WithHint("--dir another")
	}
	d.bin = filepath.Join(d.dir, "bin", "livefire")
	if err := os.MkdirAll(filepath.Dir(d.bin), 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this executable: %w", err)
	}
	return copyFile(self, d.bin)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy the executable: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return fmt.Errorf("copy the executable: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}
