package freeport

import (
	"net"
	"runtime"
	"testing"
)

func TestReservedPortsAreNotGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		r, err := Reserve("the same seed")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		if seen[r.Address] {
			t.Fatalf("%s was given twice", r.Address)
		}
		seen[r.Address] = true
	}
}

// A sidecar binds its port some time after its agent has released it: nobody else may be given it in between.
func TestReleasedPortIsItsOwnersAlone(t *testing.T) {
	r, err := Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	other, err := Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	if other.Address == r.Address {
		t.Errorf("%s was given again after its release", r.Address)
	}
	l, err := net.Listen("tcp", r.Address)
	if err != nil {
		t.Fatalf("its owner cannot bind it: %v", err)
	}
	defer l.Close()
	runtime.KeepAlive(r)
}
