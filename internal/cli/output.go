package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
)

// allFormats are the values of -o.
var allFormats = []string{"table", "wide", "json", "yaml", "jsonl", "name"}

// format is the -o of one command.
type format string

// outputFlag adds -o with the formats that a command has; the first is the default.
func outputFlag(cmd *cobra.Command, o *format, formats ...string) {
	if len(formats) == 0 {
		formats = allFormats
	}
	value := (*string)(o)
	cmd.Flags().StringVarP(value, "output", "o", formats[0], strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails for an unknown flag only
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *value) {
			return usagef(cmd, "-o %s: one of %s", *value, strings.Join(formats, ", "))
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// item is one thing of an answer: its name for -o name, and itself for programs.
type item struct {
	kind string
	name string
	doc  any
}

// page is an answer: a table for people, documents for programs.
type page struct {
	kind  string // of the items; a list of them is a "<kind>List"
	one   bool   // exactly one item, which is not put into a list
	head  []string
	rows  [][]string
	wide  int // so many columns at the end are for -o wide only
	items []item
	empty string                  // said to people instead of a table without rows
	text  func(w io.Writer) error // instead of a table
}

// print writes a page in the format that was asked for.
func (s *streams) print(f format, p page) error {
	switch f {
	case "json":
		return p.json(s.out)
	case "yaml":
		return p.yaml(s.out)
	case "jsonl":
		return p.jsonl(s.out)
	case "name":
		for _, it := range p.items {
			if _, err := fmt.Fprintf(s.out, "%s/%s\n", strings.ToLower(it.kind), it.name); err != nil {
				return err
			}
		}
		return nil
	}
	if p.text != nil {
		return p.text(s.out)
	}
	if len(p.rows) == 0 && p.empty != "" {
		s.note("%s\n", p.empty)
		return nil
	}
	if p.wide == 0 || f == "wide" {
		return table(s.out, p.head, p.rows)
	}
	narrow := len(p.head) - p.wide
	rows := make([][]string, len(p.rows))
	for i, r := range p.rows {
		rows[i] = r[:narrow]
	}
	return table(s.out, p.head[:narrow], rows)
}

// document is v as JSON with apiVersion and kind in front, unless it carries them itself.
func document(kind string, v any) (json.RawMessage, error) {
	b, err := marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	if bytes.HasPrefix(b, []byte(`{"apiVersion":`)) {
		return b, nil
	}
	if !bytes.HasPrefix(b, []byte("{")) {
		return nil, fmt.Errorf("encode %s: not an object", kind)
	}
	head := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q`, api.Version, kind)
	if string(b) != "{}" {
		head = append(head, ',')
	}
	return append(head, b[1:]...), nil
}

// marshal leaves <, > and & as they are: the reader is a program or a person, not a browser.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (p page) documents() ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	for _, it := range p.items {
		d, err := document(it.kind, it.doc)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// whole is the one document that -o json shows.
func (p page) whole() (json.RawMessage, error) {
	docs, err := p.documents()
	if err != nil {
		return nil, err
	}
	if p.one {
		return docs[0], nil
	}
	return document(p.kind+"List", struct {
		Items []json.RawMessage `json:"items"`
	}{docs})
}

func (p page) json(w io.Writer) error {
	b, err := p.whole()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return fmt.Errorf("encode %s: %w", p.kind, err)
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

func (p page) jsonl(w io.Writer) error {
	docs, err := p.documents()
	if err != nil {
		return err
	}
	for _, d := range docs {
		if _, err := fmt.Fprintf(w, "%s\n", d); err != nil {
			return err
		}
	}
	return nil
}

// yaml writes resources one after the other, as `livefire apply -f` reads them, and everything else as one document.
func (p page) yaml(w io.Writer) error {
	if len(p.items) > 0 && !slices.ContainsFunc(p.items, func(it item) bool { _, ok := it.doc.(api.Object); return !ok }) {
		for i, it := range p.items {
			b, err := api.EncodeYAML(it.doc.(api.Object))
			if err != nil {
				return err
			}
			if i > 0 {
				b = append([]byte("---\n"), b...)
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	}
	b, err := p.whole()
	if err != nil {
		return err
	}
	y, err := yaml.JSONToYAML(b)
	if err != nil {
		return fmt.Errorf("encode %s: %w", p.kind, err)
	}
	_, err = w.Write(y)
	return err
}

// table writes columns, two spaces apart; head may be nil.
func table(w io.Writer, head []string, rows [][]string) error {
	if head != nil {
		rows = append([][]string{head}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	var out strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-width(cell)))
		}
		out.WriteString(strings.TrimRight(line.String(), " "))
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// width is how many columns a text takes: colours take none.
func width(s string) int {
	n := utf8.RuneCountInString(s)
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return n
		}
		s = s[i:]
		end := strings.IndexByte(s, 'm')
		if end < 0 {
			return n
		}
		n -= end + 1
		s = s[end+1:]
	}
}

// dash stands for what is not known.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// count is how often v is in the list.
func count[T comparable](list []T, v T) int {
	n := 0
	for _, x := range list {
		if x == v {
			n++
		}
	}
	return n
}
