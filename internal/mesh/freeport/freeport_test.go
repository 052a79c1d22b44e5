package freeport

import "testing"

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

func TestReleasedPortCanBeBound(t *testing.T) {
	r, err := Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	again, err := Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if again.Address != r.Address {
		t.Errorf("after its release %s is not found again, but %s", r.Address, again.Address)
	}
}
