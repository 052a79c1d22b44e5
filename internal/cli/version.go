package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/internal/version"
)

func versionCommand(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "version", Short: "Which livefire this is", Args: cobra.NoArgs,
		Example: `  livefire version
  livefire version -o json`,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return s.print(out, page{kind: "Version", one: true, items: []item{{"Version", v.Version, v}}, text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "livefire %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
				return err
			}})
		},
	}
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}
