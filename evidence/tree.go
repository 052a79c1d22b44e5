package evidence

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is the height of the C2SP layout: a full tile holds 256 hashes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// LeafHash is SHA-256(0x00 || line), the leaf of RFC 6962.
func LeafHash(line []byte) tlog.Hash {
	return tlog.RecordHash(line)
}

// StoredHashes returns the hashes to store for the record at index n: its leaf, then the root of each complete
// subtree that it closes, from small to large. r must hold the hashes of the records before n.
func StoredHashes(n int64, line []byte, r tlog.HashReader) ([]tlog.Hash, error) {
	return tlog.StoredHashes(n, line, r)
}

// TreeHash is the root of the tree of the first size records.
func TreeHash(size int64, r tlog.HashReader) (tlog.Hash, error) {
	return tlog.TreeHash(size, r)
}

// Tile is a run of Width hashes of tree level 8 x Level, from position N x 256.
type Tile struct {
	Level int
	N     int64
	Width int // 1 to 256
}

// Tiles lists the tiles of a log of size records: every full tile and the partial one at each level's right end.
func Tiles(size int64) []Tile {
	var tiles []Tile
	for level := 0; size > 0; level++ {
		for n := int64(0); n < size/tileWidth; n++ {
			tiles = append(tiles, Tile{level, n, tileWidth})
		}
		if w := size % tileWidth; w > 0 {
			tiles = append(tiles, Tile{level, size / tileWidth, int(w)})
		}
		size /= tileWidth
	}
	return tiles
}

// Path is the tile's place in the C2SP layout: "tile/<L>/<N>[.p/<W>]", N in groups of three digits, all but the
// last with an "x" before it.
func (t Tile) Path() string {
	var b strings.Builder
	b.WriteString("tile/" + strconv.Itoa(t.Level))
	digits := strconv.FormatInt(t.N, 10)
	if r := len(digits) % 3; r != 0 {
		digits = strings.Repeat("0", 3-r) + digits
	}
	for ; len(digits) > 3; digits = digits[3:] {
		b.WriteString("/x" + digits[:3])
	}
	b.WriteString("/" + digits)
	if t.Width < tileWidth {
		fmt.Fprintf(&b, ".p/%d", t.Width)
	}
	return b.String()
}

// Read returns the bytes of the tile: Width hashes of 32 bytes.
func (t Tile) Read(r tlog.HashReader) ([]byte, error) {
	indexes := make([]int64, t.Width)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(t.Level*tileHeight, t.N*tileWidth+int64(i))
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", t.Path(), err)
	}
	if len(hashes) != t.Width {
		return nil, fmt.Errorf("read %s: %d hashes, want %d", t.Path(), len(hashes), t.Width)
	}
	b := make([]byte, 0, t.Width*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b, nil
}

// MemoryHashes is a HashReader over all stored hashes of a log, in order.
type MemoryHashes []tlog.Hash

// ReadHashes returns the hashes at the stored-hash indexes.
func (m MemoryHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(m)) {
			return nil, fmt.Errorf("hash %d of %d is not there", x, len(m))
		}
		out[i] = m[x]
	}
	return out, nil
}

// hashesOfLeaves rebuilds every stored hash of the log from its leaves.
func hashesOfLeaves(leaves []tlog.Hash) (MemoryHashes, error) {
	all := make(MemoryHashes, 0, tlog.StoredHashCount(int64(len(leaves))))
	for n, leaf := range leaves {
		more, err := tlog.StoredHashesForRecordHash(int64(n), leaf, all)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}
