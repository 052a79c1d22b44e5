package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

func site(name, region string, revision int64) *api.Site {
	s := &api.Site{Metadata: api.Metadata{Name: name, Revision: revision}, Spec: api.SiteSpec{Region: region}}
	s.Default()
	return s
}

func TestEveryKindIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	for _, k := range api.Kinds() {
		o, err := api.New(k)
		if err != nil {
			t.Fatal(err)
		}
		o.Meta().Name, o.Meta().Labels = "x", map[string]string{"a": "b"}
		o.Default()
		rev, err := s.PutObject(within(t), store.Fence{}, o)
		if err != nil || o.Meta().Revision != rev {
			t.Errorf("PutObject(%s) = %d, %v; the object says %d", k, rev, err, o.Meta().Revision)
		}
		item, err := s.Get(within(t), store.ResourcePrefix+string(k)+"/x")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(item.Value), "revision") {
			t.Errorf("the stored %s carries a revision of its own: %s", k, item.Value)
		}
		got, err := store.DecodeObject(item)
		if diff := cmp.Diff(o, got); diff != "" || err != nil {
			t.Errorf("DecodeObject(%s): %v (-want +got):\n%s", k, err, diff)
		}
		if ref, err := store.RefOfKey(item.Key); err != nil || ref != api.RefOf(o) {
			t.Errorf("RefOfKey(%s) = %v, %v", item.Key, ref, err)
		}
	}
}

func TestObjectWithoutAKindIsDefaultedWhenWritten(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	bare := &api.Service{Metadata: api.Metadata{Name: "payments"}, Spec: api.ServiceSpec{Data: "stateless"}}
	if _, err := s.PutObject(within(t), store.Fence{}, bare); err != nil {
		t.Fatal(err)
	}
	got, err := store.GetObject[api.Service](within(t), s, "payments")
	if err != nil || got.Type != got.TypeOf() || got.Spec.Port == 0 {
		t.Errorf("GetObject = %+v, %v, want its kind and its defaults", got, err)
	}
}

func TestObjectsAreWrittenAtTheirRevision(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	write := func(o api.Object) string {
		_, err := s.PutObject(within(t), store.Fence{}, o)
		return outcome(err)
	}
	first := site("eu", "1", 0)
	if got := write(first); got != "" {
		t.Fatalf("PutObject of a new one: %s", got)
	}
	stale := *first
	if got := write(first); got != "" {
		t.Errorf("PutObject at its own revision: %s", got)
	}
	if got := write(&stale); got != "Conflict, changed meanwhile" {
		t.Errorf("PutObject at an older revision: %q, want a conflict", got)
	}
	if got := write(site("us", "1", 99)); got != "Conflict, changed meanwhile" {
		t.Errorf("PutObject of one that was deleted meanwhile: %q, want a conflict", got)
	}
	if got := write(site("eu", "2", 0)); got != "" {
		t.Errorf("PutObject over whatever is there: %s", got)
	}
	if _, err := s.CreateObject(within(t), store.Fence{}, site("eu", "3", 0)); outcome(err) != "Conflict, changed meanwhile" {
		t.Errorf("CreateObject of one that exists = %v, want a conflict", err)
	}
	if _, err := s.CreateObject(within(t), store.Fence{}, site("us", "4", 0)); err != nil {
		t.Errorf("CreateObject = %v", err)
	}
	all, at, err := store.ListObjects[api.Site](within(t), s)
	if err != nil || len(all) != 2 || all[0].Spec.Region != "2" || all[1].Spec.Region != "4" || all[1].Metadata.Revision != at {
		t.Errorf("ListObjects = %+v at %d, %v, want eu of 2 and us of 4", all, at, err)
	}
	for _, name := range []string{"", "a/b", "none"} {
		want := map[bool]api.ErrorKind{true: api.NotFound, false: api.Invalid}[name == "none"]
		if _, err := store.GetObject[api.Site](within(t), s, name); api.KindOf(err) != want {
			t.Errorf("GetObject(%q) = %v, want %s", name, err, want)
		}
	}
}

func TestSetOfObjectsIsAppliedWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	ctx, cancel := context.WithCancel(within(t))
	eu, us := site("eu", "1", 0), site("us", "1", 0)
	if _, err := s.PutObjects(ctx, store.Fence{}, []api.Object{eu, us}, nil); err != nil {
		t.Fatal(err)
	}
	other := *us
	if _, err := s.PutObject(ctx, store.Fence{}, &other); err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		all, _, err := store.ListObjects[api.Site](within(t), s)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			out = append(out, o.Metadata.Name+o.Spec.Region)
		}
		return out
	}
	eu.Spec.Region, us.Spec.Region = "2", "2"
	added, gone := site("ap", "2", 0), []api.Ref{{Kind: api.KindSite, Name: "eu"}}
	if _, err := s.PutObjects(ctx, store.Fence{}, []api.Object{added, us}, gone); outcome(err) != "Conflict, changed meanwhile" {
		t.Errorf("PutObjects with one stale object = %v, want a conflict", err)
	}
	if diff := cmp.Diff([]string{"eu1", "us1"}, names()); diff != "" || added.Metadata.Revision != 0 {
		t.Errorf("after the refusal, revision %d (-want +got):\n%s", added.Metadata.Revision, diff)
	}
	us.Metadata.Revision = other.Metadata.Revision
	gone = append(gone, api.Ref{Kind: api.KindSite, Name: "never was"})
	rev, err := s.PutObjects(ctx, store.Fence{}, []api.Object{added, us}, gone)
	if err != nil || added.Metadata.Revision != rev || us.Metadata.Revision != rev {
		t.Errorf("PutObjects = %d, %v; the objects say %d and %d", rev, err, added.Metadata.Revision, us.Metadata.Revision)
	}
	if diff := cmp.Diff([]string{"ap2", "us2"}, names()); diff != "" {
		t.Errorf("after the apply (-want +got):\n%s", diff)
	}

	// A leader that is no more changes nothing.
	var old store.Fence
	_ = s.Lead(ctx, "apply", "a", store.MinTTL, func(_ context.Context, f store.Fence) error { // ends with our cancel
		old = f
		cancel()
		return nil
	})
	if _, err := s.PutObjects(within(t), old, []api.Object{site("eu", "3", 0)}, nil); outcome(err) != "Conflict, no longer the leader" {
		t.Errorf("PutObjects of an old leader = %v, want ErrFenced", err)
	}
}

func TestDeleteObject(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	eu := site("eu", "1", 0)
	ref := api.RefOf(eu)
	remove := func(revision int64) string {
		_, err := s.DeleteObject(within(t), store.Fence{}, ref, revision)
		return outcome(err)
	}
	if got := remove(0); got != "NotFound" {
		t.Errorf("DeleteObject of nothing: %q, want NotFound", got)
	}
	for _, at := range []bool{true, false} {
		eu.Metadata.Revision = 0
		rev, err := s.PutObject(within(t), store.Fence{}, eu)
		if err != nil {
			t.Fatal(err)
		}
		if got := remove(rev + 1); got != "Conflict, changed meanwhile" {
			t.Errorf("DeleteObject at another revision: %q, want a conflict", got)
		}
		if !at {
			rev = 0
		}
		if got := remove(rev); got != "" {
			t.Errorf("DeleteObject at revision %d: %q", rev, got)
		}
	}
}

func TestKeysThatNameNoResourceAreRefused(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "/livefire/resources/", "/livefire/resources/Site", "/livefire/resources/Site/", "/livefire/resources//x",
		"/livefire/resources/Site/a/b", "/livefire/records/Site/a"} {
		if _, err := store.RefOfKey(key); api.KindOf(err) != api.Invalid {
			t.Errorf("RefOfKey(%q) = %v, want Invalid", key, err)
		}
	}
	if _, err := store.DecodeObject(store.Item{Key: store.ResourcePrefix + "Ship/x", Value: []byte("{}")}); api.KindOf(err) != api.Invalid {
		t.Errorf("DecodeObject of an unknown kind = %v, want Invalid", err)
	}
	if _, err := store.DecodeObject(store.Item{Key: store.ResourcePrefix + "Site/x", Value: []byte("{")}); err == nil {
		t.Errorf("DecodeObject of half a value = nil, want an error")
	}
	o, err := store.DecodeObject(store.Item{Key: store.ResourcePrefix + "Site/x", Value: []byte(`{"spec":{"region":"r","later":1}}`), Revision: 7})
	if err != nil || o.Meta().Revision != 7 || o.(*api.Site).Spec.Region != "r" {
		t.Errorf("DecodeObject of a newer form = %+v, %v, want what is known of it", o, err)
	}
}
