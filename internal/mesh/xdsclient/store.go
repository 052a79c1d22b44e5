package xdsclient

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// A table on disk is three parts: the line magic, a line with the SHA-256 of the rest in hex, and the rest: a
// DeltaDiscoveryResponse with every resource of the table, in the order of xds.TableTypes.
const (
	magic     = "livefire-table/1\n"
	tableFile = "table.pb"
)

var errNoTable = errors.New("no table on disk")

// store keeps the last good table. The zero value keeps nothing.
type store struct{ dir string }

// save replaces the file by rename, so that a crash leaves the old one or the new one.
func (s store) save(r xds.Resources) error {
	if s.dir == "" {
		return nil
	}
	b, err := encode(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("save table: %w", err)
	}
	f, err := os.CreateTemp(s.dir, tableFile+".*")
	if err != nil {
		return fmt.Errorf("save table: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, tableFile))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save table: %w", err), os.Remove(f.Name()))
	}
	return syncDir(s.dir)
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("save table: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("save table: %w", err)
	}
	return nil
}

// load returns errNoTable if there is none.
func (s store) load() (xds.Resources, error) {
	if s.dir == "" {
		return nil, errNoTable
	}
	b, err := os.ReadFile(filepath.Join(s.dir, tableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoTable
	}
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return decode(b)
}

func encode(r xds.Resources) ([]byte, error) {
	m := new(discoveryv3.DeltaDiscoveryResponse)
	for _, url := range xds.TableTypes() {
		for _, x := range r[url] {
			m.Resources = append(m.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
		}
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode table: %w", err)
	}
	sum := sha256.Sum256(body)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

func decode(b []byte) (xds.Resources, error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok {
		return nil, fmt.Errorf("read table: it does not begin with %q", magic)
	}
	want, body, ok := bytes.Cut(rest, []byte("\n"))
	sum := sha256.Sum256(body)
	if !ok || string(want) != hex.EncodeToString(sum[:]) {
		return nil, errors.New("read table: its checksum is wrong")
	}
	m := new(discoveryv3.DeltaDiscoveryResponse)
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	out := xds.Resources{}
	for _, r := range m.GetResources() {
		if err := check(r.GetResource().GetTypeUrl(), r); err != nil {
			return nil, fmt.Errorf("read table: %s: %w", r.GetName(), err)
		}
		out.Add(xds.Resource{Name: r.GetName(), Version: r.GetVersion(), Body: r.GetResource()})
	}
	if err := xds.Complete(out); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return out, nil
}
