package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing/fstest"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

func evidenceCommand(s *streams) *cobra.Command {
	return group("evidence", "What a run leaves behind, and its proof", `  livefire evidence export site-loss-20261120-1 --out run.tar
  livefire evidence verify run.tar --key evidence.pub`, evidenceVerify(s), evidenceExport(s))
}

func evidenceVerify(s *streams) *cobra.Command {
	var key string
	var out format
	c := &cobra.Command{
		Use: "verify BUNDLE --key FILE", Short: "Check a bundle offline: signatures, log, records, samples, every number", Args: cobra.ExactArgs(1),
		Example: `  livefire evidence verify run.tar --key evidence.pub
  livefire evidence verify evidence/site-loss-20261120-1 --key evidence.pub -o json`,
		Long: `BUNDLE is a directory or a tar archive of one. Needs no server, network or clock: only the public key that signed it
(evidence.pub in the data directory of the server).

Exit status: 0 everything follows; 1 it does not, and the file and record are named; 2 it cannot be read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return usagef(cmd, "--key is required: the file with the public key of the server")
			}
			return s.verify(args[0], key, out)
		},
	}
	c.Flags().StringVar(&key, "key", "", "file with the server's public key (note verifier form)")
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

// verified is the answer of evidence verify.
type verified struct {
	Bundle     string   `json:"bundle"`
	Verdict    string   `json:"verified"` // yes | no | incomplete
	Reason     string   `json:"reason,omitempty"`
	File       string   `json:"file,omitempty"`
	Record     *int64   `json:"record,omitempty"`
	Run        string   `json:"run,omitempty"`
	Result     string   `json:"result,omitempty"` // verdict of the run
	Records    int      `json:"records,omitempty"`
	Files      int      `json:"files,omitempty"`
	Samples    int      `json:"sampleFiles,omitempty"`
	Approvals  []string `json:"approvals,omitempty"`
	Checkpoint string   `json:"checkpoint,omitempty"`
	Size       int64    `json:"logSize,omitempty"`
	SamePage   bool     `json:"samePage,omitempty"`
}

func (s *streams) verify(bundle, keyFile string, out format) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return api.Errorf(api.Invalid, keyFile, "key not read: %v", err)
	}
	vkey := strings.TrimSpace(string(key))
	if _, _, err := evidence.ParseVerifierKey(vkey); err != nil {
		return api.Errorf(api.Invalid, keyFile, "is not a public key in note verifier form: %v", err).WithHint("the file evidence.pub of the server's data directory")
	}
	files, err := openBundle(bundle)
	if err != nil {
		return err
	}
	v, err := report.Verify(files, vkey)
	answer := answerOf(bundle, v, err)
	style := s.style(s.out)
	if err := s.print(out, page{kind: "Verification", one: true, items: []item{{"Verification", bundle, answer}},
		text: func(w io.Writer) error { return writeVerified(w, style, answer) }}); err != nil {
		return err
	}
	if answer.Verdict != "yes" {
		return status(ExitNo)
	}
	return nil
}

// answerOf turns the verifier's result into what is printed.
func answerOf(bundle string, v *report.Verification, err error) verified {
	a := verified{Bundle: bundle, Verdict: "yes"}
	if v != nil && v.Evidence != nil {
		e := v.Evidence
		a.Run, a.Result, a.Records, a.Files, a.Samples = e.Run, v.Report.Run.Verdict, len(e.Records), len(e.Manifest), len(e.Samples)
		a.Checkpoint, a.Size, a.SamePage = e.Checkpoint.Origin, e.Checkpoint.Size, v.SamePage
		for _, p := range e.Approvals {
			a.Approvals = append(a.Approvals, fmt.Sprintf("%s %s by %s", p.Group, p.Decision, p.By))
		}
	}
	if err == nil {
		return a
	}
	a.Verdict, a.Reason = "no", strings.TrimPrefix(err.Error(), "verify: ")
	var structure *evidence.VerifyError
	var number *report.DiffError
	switch {
	case errors.As(err, &structure):
		a.File = structure.File
		if structure.Record >= 0 {
			a.Record = &structure.Record
		}
		if structure.Incomplete {
			a.Verdict = "incomplete"
		}
	case errors.As(err, &number):
		a.File = number.File
	}
	return a
}

func writeVerified(w io.Writer, style view.Style, a verified) error {
	var b strings.Builder
	switch a.Verdict {
	case "no":
		fmt.Fprintf(&b, "%s %s is NOT verified\n  %s\n", style.Bad(), a.Bundle, a.Reason)
	default:
		fmt.Fprintf(&b, "%s statement   signed by %s, about %d files\n", style.OK(), a.Checkpoint, a.Files)
		fmt.Fprintf(&b, "%s log         %d records of run %s, all of them under the checkpoint of %d\n", style.OK(), a.Records, a.Run, a.Size)
		fmt.Fprintf(&b, "%s approvals   %s\n", style.OK(), firstOf(strings.Join(a.Approvals, ", "), "none"))
		fmt.Fprintf(&b, "%s samples     %d files, each as its record names it\n", style.OK(), a.Samples)
		fmt.Fprintf(&b, "%s report      every field computed again from records and samples\n", style.OK())
		if !a.SamePage {
			fmt.Fprintf(&b, "%s report.html is laid out by another version; its bytes are covered by the statement\n", style.Warn())
		}
	}
	switch a.Verdict {
	case "yes":
		fmt.Fprintf(&b, "verified: run %s, verdict %s\n", a.Run, strings.ToUpper(a.Result))
	case "incomplete":
		fmt.Fprintf(&b, "%s incomplete: %s\n", style.Bad(), a.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxBundle bounds what is read of an archive.
const maxBundle = 2 << 30

// openBundle opens a directory, or reads a tar archive of one.
func openBundle(name string) (fs.FS, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, api.Errorf(api.NotFound, name, "bundle not read: %v", err)
	}
	if info.IsDir() {
		return os.DirFS(name), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, name, "bundle not read: %v", err)
	}
	defer f.Close()
	files, err := readArchive(io.LimitReader(f, maxBundle))
	if err != nil {
		return nil, api.Errorf(api.Invalid, name, "is neither a directory nor an archive of a bundle: %v", err)
	}
	return files, nil
}

// readArchive reads the files of an archive whose members all stand under one directory.
func readArchive(r io.Reader) (fs.FS, error) {
	files := fstest.MapFS{}
	root := ""
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		name := path.Clean(h.Name)
		dir, rest, ok := strings.Cut(name, "/")
		if h.Typeflag != tar.TypeReg || !ok || !fs.ValidPath(name) || root != "" && dir != root {
			return nil, fmt.Errorf("unexpected member %q", h.Name)
		}
		root = dir
		if _, twice := files[rest]; twice {
			return nil, fmt.Errorf("member %q is there twice", h.Name)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, t); err != nil {
			return nil, err
		}
		files[rest] = &fstest.MapFile{Data: b.Bytes(), Mode: 0o444}
	}
	if len(files) == 0 {
		return nil, errors.New("it is empty")
	}
	return files, nil
}

func evidenceExport(s *streams) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "export RUN --out FILE.tar", Short: "Write a finished run's evidence to a tar archive", Args: cobra.ExactArgs(1),
		Example: "  livefire evidence export site-loss-20261120-1 --out run.tar", ValidArgsFunction: s.completeNames(api.KindDrillRun),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef(cmd, "--out is required: a file that does not exist yet")
			}
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return api.Errorf(api.Invalid, file, "not written: %v", err)
			}
			err = s.call(cmd, func(ctx context.Context, c *client.Client) error { return c.Bundle(ctx, args[0], f) })
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(err, os.Remove(file)) // half an archive is worth nothing
			}
			if _, err := fmt.Fprintln(s.out, file); err != nil {
				return err
			}
			s.note("Verify: livefire evidence verify %s --key FILE\n", file)
			return nil
		},
	}
	c.Flags().StringVar(&file, "out", "", "file to write")
	return c
}
