package evidence

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var update = flag.Bool("update", false, "rewrite testdata")

// vectors is testdata/vectors.json: what another implementation must compute, and what it must refuse.
type vectors struct {
	VerifierKey string            `json:"verifierKey"`
	Records     []recordVector    `json:"records"`
	Roots       []rootVector      `json:"roots"`
	Tiles       map[string]string `json:"tiles"` // of the tree of all records: path to hex
	Checkpoint  string            `json:"checkpoint"`
	Approval    approvalVector    `json:"approval"`
	PAE         string            `json:"pae"` // of the approval, hex
	SampleFiles map[string]string `json:"sampleFiles"`
	Refused     []refusedVector   `json:"refused"`
}

type recordVector struct {
	Line string `json:"line"`
	Leaf string `json:"leaf"` // hex
}

type rootVector struct {
	Size int64  `json:"size"`
	Root string `json:"root"` // hex
}

type approvalVector struct {
	Seed      string `json:"seed"`      // private seed, hex: a test key
	PublicKey string `json:"publicKey"` // hex
	KeyID     string `json:"keyId"`
	Payload   string `json:"payload"`
	Envelope  string `json:"envelope"`
}

// refusedVector is a byte string that a lenient decoder would take.
type refusedVector struct {
	Format string `json:"format"` // record, checkpoint, approval or manifest
	Why    string `json:"why"`
	Base64 string `json:"base64"`
}

const vectorFile = "testdata/vectors.json"

func makeVectors(t *testing.T) (vectors, *fixture) {
	t.Helper()
	f := newFixture(t, fixtureOptions{before: 2, groups: []string{"security"}})
	v := vectors{VerifierKey: f.log.signer.VerifierKey(), Checkpoint: string(f.in.Checkpoint), Tiles: map[string]string{}, SampleFiles: map[string]string{}}
	for n, r := range f.log.records {
		line, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		leaf := LeafHash(line)
		v.Records = append(v.Records, recordVector{string(line), hex.EncodeToString(leaf[:])})
		root, err := TreeHash(int64(n)+1, f.log.hashes)
		if err != nil {
			t.Fatal(err)
		}
		v.Roots = append(v.Roots, rootVector{int64(n) + 1, hex.EncodeToString(root[:])})
		if s, ok, err := SampleFileOf(r); err != nil {
			t.Fatal(err)
		} else if ok {
			v.SampleFiles[string(r.Data)] = s.Path
		}
	}
	for _, tile := range Tiles(int64(len(f.log.records))) {
		b, err := tile.Read(f.log.hashes)
		if err != nil {
			t.Fatal(err)
		}
		v.Tiles[tile.Path()] = hex.EncodeToString(b)
	}
	key := testKey("security")
	payload, err := openEnvelope(f.approvals["security"], ApprovalPayloadType, publicOf(key))
	if err != nil {
		t.Fatal(err)
	}
	v.Approval = approvalVector{hex.EncodeToString(key.Seed()), hex.EncodeToString(publicOf(key)), KeyID(publicOf(key)),
		string(payload), string(f.approvals["security"])}
	v.PAE = hex.EncodeToString(pae(ApprovalPayloadType, payload))
	v.refuse()
	v.refuseSigned(t, f.log.signer)
	return v, f
}

func (v *vectors) refuse() {
	add := func(format, why, whole, old, with string) {
		bad := strings.Replace(whole, old, with, 1)
		v.Refused = append(v.Refused, refusedVector{format, why, base64.StdEncoding.EncodeToString([]byte(bad))})
	}
	line := v.Records[2].Line
	add("record", "letter case of a member", line, `"index"`, `"Index"`)
	add("record", "member twice", line, `"index":2`, `"index":2,"index":2`)
	add("record", "member twice in the payload", line, `"data":{`, `"data":{"drill":"x",`)
	add("record", "white space", line, `,"run"`, `, "run"`)
	add("record", "escape that is not needed", line, `"server"`, `"\u0073erver"`)
	add("record", "offset instead of Z", line, `Z"`, `+00:00"`)
	add("record", "newline belongs to the file, not to the line", line, `}`, "}\n")
	c := v.Checkpoint
	add("checkpoint", "further signature line", c+"— other.example AAAAAAAA\n", "", "")
	add("checkpoint", "signature line twice", c+c[strings.Index(c, "\n\n")+2:], "", "")
	add("checkpoint", "no newline at the end", strings.TrimSuffix(c, "\n"), "", "")
	e := v.Approval.Envelope
	add("approval", "letter case of a member", e, `"payload"`, `"Payload"`)
	add("approval", "key id of another key", e, v.Approval.KeyID, digest(nil))
	add("approval", "two signatures", e, `]}`, `,{"keyid":"","sig":""}]}`)
	add("approval", "padding missing", e, `=="}]`, `"}]`)
	add("approval", "no newline at the end", strings.TrimSuffix(e, "\n"), "", "")
	m := "livefire-bundle/1\n" + digest(nil) + " 0 samples/a\n"
	add("manifest", "two names that differ by case only", m, digest(nil), digest(nil)+" 0 samples/A\n"+digest(nil))
	add("manifest", "path out of the bundle", m, "samples/a", "samples/../a")
	add("manifest", "lists itself", m, "samples/a", "manifest")
	add("manifest", "leading zero", m, " 0 ", " 00 ")
}

// refuseSigned adds what is refused although its signature is right.
func (v *vectors) refuseSigned(t *testing.T, s *Signer) {
	t.Helper()
	add := func(format, why string, b []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		v.Refused = append(v.Refused, refusedVector{format, why + ", signed", base64.StdEncoding.EncodeToString(b)})
	}
	text, _, _ := strings.Cut(v.Checkpoint, "\n\n")
	for why, other := range map[string]string{
		"extension line": text + "\nx\n", "leading zero in the size": strings.Replace(text, "\n18\n", "\n018\n", 1) + "\n",
		"other origin": "x" + text + "\n", "two lines": s.Name() + "\n18\n",
	} {
		b, err := note.Sign(&note.Note{Text: other}, s.note)
		add("checkpoint", why, b, err)
	}
	key := testKey("security")
	for why, with := range map[string][2]string{
		"unknown member": {`{"run"`, `{"x":1,"run"`}, "letter case of a member": {`"run"`, `"Run"`},
		"offset instead of Z": {`Z"`, `+00:00"`}, "other zone": {`Z"`, `+01:00"`}, "unknown decision": {Approve, "agree"},
	} {
		b, err := sealEnvelope(key, ApprovalPayloadType, []byte(strings.Replace(v.Approval.Payload, with[0], with[1], 1)))
		add("approval", why, b, err)
	}
	b, err := sealEnvelope(key, StatementPayloadType, []byte(v.Approval.Payload))
	add("approval", "other payload type", b, err)
	slices.SortStableFunc(v.Refused, func(a, b refusedVector) int { return strings.Compare(a.Format+a.Why, b.Format+b.Why) })
}

// The bytes are a promise: a change of them is a new version of the format, not an update of this file.
func TestVectorsAreStable(t *testing.T) {
	v, f := makeVectors(t)
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	files := filesOf(t, f.write(t))
	if *update {
		writeTestdata(t, buf.Bytes(), files)
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("%s is no longer what this code computes", vectorFile)
	}
	kept := filesOf(t, "testdata/bundle")
	if len(kept) != len(files) {
		t.Errorf("testdata/bundle has %d files, want %d", len(kept), len(files))
	}
	for name := range files {
		if !bytes.Equal(kept[name], files[name]) {
			t.Errorf("testdata/bundle/%s is no longer what this code writes", name)
		}
	}
	if _, err := Verify(os.DirFS("testdata/bundle"), v.VerifierKey); err != nil {
		t.Errorf("testdata/bundle: %v", err)
	}
}

func writeTestdata(t *testing.T, vectors []byte, files map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll("testdata/bundle"); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{vectorFile: vectors}
	for name, b := range files {
		out["testdata/bundle/"+name] = b
	}
	for name, b := range out {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusedVectorsAreRefused(t *testing.T) {
	v, _ := makeVectors(t)
	pub := publicOf(testKey("security"))
	good := map[string]error{}
	_, good["record"] = DecodeRecord([]byte(v.Records[2].Line))
	_, good["checkpoint"] = OpenCheckpoint([]byte(v.Checkpoint), v.VerifierKey)
	_, good["approval"] = VerifyApproval([]byte(v.Approval.Envelope), pub)
	for format, err := range good {
		if err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	for _, r := range v.Refused {
		b, err := base64.StdEncoding.DecodeString(r.Base64)
		if err != nil {
			t.Fatal(err)
		}
		switch r.Format {
		case "record":
			_, err = DecodeRecord(b)
		case "checkpoint":
			_, err = OpenCheckpoint(b, v.VerifierKey)
		case "approval":
			_, err = VerifyApproval(b, pub)
		case "manifest":
			_, err = ParseManifest(b)
		}
		if err == nil {
			t.Errorf("%s (%s) was accepted: %s", r.Format, r.Why, b)
		}
		for _, whole := range []string{v.Records[2].Line, v.Checkpoint, v.Approval.Envelope} {
			if string(b) == whole {
				t.Errorf("%s (%s) changes nothing", r.Format, r.Why)
			}
		}
	}
}

// The definition of the tiles, from the leaves alone.
func TestVectorTilesAreTheLeaves(t *testing.T) {
	v, _ := makeVectors(t)
	var leaves string
	for _, r := range v.Records {
		leaf := tlog.RecordHash([]byte(r.Line))
		leaves += hex.EncodeToString(leaf[:])
	}
	for path, b := range v.Tiles {
		if !strings.HasPrefix(path, "tile/0/") || b != leaves {
			t.Errorf("%s is not the leaves in order", path)
		}
	}
}
