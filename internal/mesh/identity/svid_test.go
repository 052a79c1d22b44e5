package identity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

func TestSVIDIsReadBackAsItWasSaved(t *testing.T) {
	ca := newCA(t, domain, time.Now())
	dir := filepath.Join(t.TempDir(), "node")
	if _, err := LoadSVID(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadSVID before the join = %v, want fs.ErrNotExist", err)
	}
	for _, id := range []ID{payments, Server(domain)} {
		v := issue(t, ca, id)
		if err := v.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := LoadSVID(dir)
		if err != nil {
			t.Fatalf("LoadSVID = %v", err)
		}
		if got.ID() != id || !got.NotAfter().Equal(v.NotAfter()) || !bytes.Equal(got.ChainPEM(), v.ChainPEM()) ||
			!bytes.Equal(got.RootsPEM(), v.RootsPEM()) || !got.key.private.Equal(v.key.private) {
			t.Errorf("LoadSVID = %s until %v, want %s until %v, with its key, chain and roots", got.ID(), got.NotAfter(), id, v.NotAfter())
		}
	}
	for _, name := range []string{svidFile, rootsFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s = %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the directory holds %v, %v, want two files", entries, err)
	}
}

// A node that was off for days says that it has expired, rather than that it was never joined.
func TestExpiredSVIDIsStillRead(t *testing.T) {
	now := time.Now()
	ca := newCA(t, domain, now.Add(-time.Hour))
	dir := t.TempDir()
	if err := issueAt(t, ca, payments, now.Add(-time.Hour), time.Minute).Save(dir); err != nil {
		t.Fatal(err)
	}
	if v, err := LoadSVID(dir); err != nil || !v.NotAfter().Before(now) {
		t.Errorf("LoadSVID = %v, want an expired one", err)
	}
}

func TestSVIDRefusesPartsThatDoNotBelongTogether(t *testing.T) {
	ca, other := newCA(t, domain, time.Now()), newCA(t, domain, time.Now())
	v := issue(t, ca, payments)
	stranger, _ := newKey(t)
	for _, tt := range []struct {
		name         string
		key          Key
		chain, roots []byte
		ok           bool
	}{
		{"its own parts", v.key, v.ChainPEM(), ca.Roots(), true},
		{"old and new roots", v.key, v.ChainPEM(), append(other.Roots(), ca.Roots()...), true},
		{"another key", stranger, v.ChainPEM(), ca.Roots(), false},
		{"roots of another", v.key, v.ChainPEM(), other.Roots(), false},
		{"no chain", v.key, nil, ca.Roots(), false},
		{"no roots", v.key, v.ChainPEM(), nil, false},
		{"the root as the leaf", Key{ca.key}, ca.Roots(), ca.Roots(), false},
	} {
		if _, err := NewSVID(tt.key, tt.chain, tt.roots); (err == nil) != tt.ok || !tt.ok && api.KindOf(err) != api.Invalid {
			t.Errorf("%s: NewSVID = %v, want accepted: %t", tt.name, err, tt.ok)
		}
	}
}

func TestLoadSVIDRefusesAnOpenKey(t *testing.T) {
	dir := t.TempDir()
	if err := issue(t, newCA(t, domain, time.Now()), payments).Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, svidFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSVID(dir); api.KindOf(err) != api.Invalid {
		t.Errorf("LoadSVID = %v, want Invalid", err)
	}
}

func FuzzParseCertificates(f *testing.F) {
	ca := newCA(f, domain, time.Now())
	f.Add(ca.Roots())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := parseCertificates(b)
		if err != nil {
			return
		}
		again, err := parseCertificates(encodeCertificates(certs...))
		if err != nil || len(again) != len(certs) {
			t.Fatalf("read %d certificates, then %d, %v", len(certs), len(again), err)
		}
	})
}
