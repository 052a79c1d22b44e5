package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
)

// global is what every command takes.
type global struct {
	contextFile string // --context
	color       string // --color
	noInput     bool   // --no-input
}

func addGlobalFlags(root *cobra.Command, s *streams) {
	f := root.PersistentFlags()
	f.StringVar(&s.contextFile, "context", "", "context file (default $LIVEFIRE_CONTEXT, else ~/.config/livefire/context.yaml)")
	f.StringVar(&s.color, "color", "auto", "auto, always or never")
	f.BoolVar(&s.noInput, "no-input", false, "never ask; fail and name the flag that is missing")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains([]string{"auto", "always", "never"}, s.color) {
			return usagef(cmd, "--color %q: auto, always or never", s.color)
		}
		return nil
	}
}

// terminal says whether a stream is a person's terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// style is how a stream wants it: colour on a terminal alone, ASCII under a locale that is not UTF-8.
func (s *streams) style(w io.Writer) view.Style {
	tty := terminal(w) && os.Getenv("TERM") != "dumb"
	return view.Style{TTY: tty, ASCII: !utf8Locale(), Color: s.color == "always" || s.color != "never" && tty && os.Getenv("NO_COLOR") == ""}
}

// utf8Locale reads the variables in the order of setlocale(3); without any of them the locale is C.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ReplaceAll(strings.ToLower(v), "-", "")
			return strings.Contains(v, "utf8")
		}
	}
	return false
}

// contextPath is the context file that counts.
func (s *streams) contextPath() (string, error) {
	if s.contextFile != "" {
		return s.contextFile, nil
	}
	if path := os.Getenv("LIVEFIRE_CONTEXT"); path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", api.Errorf(api.Invalid, "context", "no home directory: %v", err).WithHint("--context FILE or LIVEFIRE_CONTEXT")
	}
	return filepath.Join(home, ".config", "livefire", "context.yaml"), nil
}

func (s *streams) connect() (*client.Client, error) {
	path, err := s.contextPath()
	if err != nil {
		return nil, err
	}
	return client.Load(path)
}

// answerLimit is how long one answer of the server may take.
const answerLimit = 60 * time.Second

// call runs f with a client, for as long as one answer may take.
func (s *streams) call(cmd *cobra.Command, f func(ctx context.Context, c *client.Client) error) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), answerLimit)
	defer cancel()
	return f(ctx, c)
}

// confirm asks for one word that must be typed as it is. missing names the flags that answer in advance.
func (s *streams) confirm(cmd *cobra.Command, question, word, missing string) error {
	if s.noInput || !terminal(s.in) {
		return usagef(cmd, "would ask: %s: there is nobody to ask, so add %s", question, missing)
	}
	_, _ = fmt.Fprintf(s.err, "%s: type %q to continue: ", question, word)
	answer, err := readLine(cmd.Context(), s.in)
	if err != nil {
		return err
	}
	if answer != word {
		_, _ = fmt.Fprintln(s.err, "not confirmed: nothing was changed")
		return status(ExitNo)
	}
	return nil
}

// readLine reads one line, and no byte behind it. A read from a terminal cannot be cancelled: when ctx ends first, its
// goroutine stays until the process ends, which is at once.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		var line []byte
		var b [1]byte
		for {
			n, err := r.Read(b[:])
			if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
				done <- answer{line: strings.TrimSpace(string(line))}
				return
			}
			if err != nil {
				done <- answer{err: fmt.Errorf("read the answer: %w", err)}
				return
			}
			line = append(line, b[:n]...)
		}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-done:
		return a.line, a.err
	}
}

// note prints to people: progress, warnings, what comes next.
func (s *streams) note(format string, args ...any) { _, _ = fmt.Fprintf(s.err, format, args...) }
