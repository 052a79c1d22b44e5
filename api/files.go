package api

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
)

// DecodeFS reads files and directories of fsys: of a directory, every *.yaml, *.yml and *.json below it, in the
// order of their names; names that begin with a dot are left out. All errors of all files come in one *Error.
func DecodeFS(fsys fs.FS, paths ...string) ([]Document, error) {
	return decodeFiles(paths, func(p string) ([]string, error) { return list(fsys, p) }, func(p string) (io.ReadCloser, error) { return fsys.Open(p) })
}

// DecodeDir does what DecodeFS does, for paths of this machine.
func DecodeDir(paths ...string) ([]Document, error) {
	below := func(p string) ([]string, error) {
		info, err := os.Stat(p)
		if err != nil || !info.IsDir() {
			return []string{p}, err
		}
		names, err := list(os.DirFS(p), ".")
		for i, n := range names {
			names[i] = path.Join(p, n)
		}
		return names, err
	}
	return decodeFiles(paths, below, func(p string) (io.ReadCloser, error) { return os.Open(p) })
}

func decodeFiles(paths []string, below func(string) ([]string, error), open func(string) (io.ReadCloser, error)) ([]Document, error) {
	var docs []Document
	var details []Position
	seen := map[string]bool{}
	first := map[Ref]Document{}
	for _, p := range paths {
		names, err := below(p)
		if err != nil {
			return nil, unreadable(p, err)
		}
		if len(names) == 0 {
			return nil, Errorf(Invalid, p, "holds no *.yaml, *.yml or *.json file").WithHint("name a file, or another directory")
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			found, err := decodeFile(name, open)
			var bad *Error
			switch {
			case errors.As(err, &bad) && len(bad.Details) > 0:
				details = append(details, bad.Details...)
			case err != nil:
				return nil, err
			}
			for _, d := range found {
				ref := RefOf(d.Object)
				if other, twice := first[ref]; twice {
					details = append(details, d.Locate(Problem{Path: "$.metadata.name", Code: CodeSameName, Hint: "rename one of them, or merge the two",
						Message: fmt.Sprintf("%s is already written at %s:%d", ref, other.File, other.Line)}))
					continue
				}
				first[ref] = d
				docs = append(docs, d)
			}
		}
	}
	if len(details) > 0 {
		e := Errorf(Invalid, "", "%d errors; nothing was read", len(details))
		if len(details) == 1 {
			e.Message = "1 error; nothing was read"
		}
		e.Details = details
		return nil, e
	}
	return docs, nil
}

func decodeFile(name string, open func(string) (io.ReadCloser, error)) ([]Document, error) {
	r, err := open(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, MaxFileBytes+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	return Decode(name, data)
}

func unreadable(name string, err error) error {
	kind := Unavailable
	if errors.Is(err, fs.ErrNotExist) {
		kind = NotFound
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return Errorf(kind, name, "cannot be read: %v", err)
}

// list is p itself if it is a file, else the files below it.
func list(fsys fs.FS, p string) ([]string, error) {
	var out []string
	err := fs.WalkDir(fsys, p, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != p && d.Name()[0] == '.':
			if d.IsDir() {
				return fs.SkipDir
			}
		case !d.IsDir() && (name == p || slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))):
			out = append(out, name)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}
