package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// ociImage is what an archive of an image holds.
type ociImage struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User         string              `json:"User"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Labels       map[string]string   `json:"Labels"`
	} `json:"config"`

	name  string
	files map[string]ociFile // by path, without folders
	size  int64              // of all layers as they are transferred
}

type ociFile struct {
	mode    int64
	content []byte
}

// readTar calls visit for each entry.
func readTar(t *testing.T, from io.Reader, visit func(h *tar.Header, content []byte)) {
	t.Helper()
	for archive := tar.NewReader(from); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		var content []byte
		if err == nil {
			content, err = io.ReadAll(archive)
		}
		if err != nil {
			t.Fatal(err)
		}
		visit(h, content)
	}
}

// readOCI reads an archive with a single image.
func readOCI(t *testing.T, path string) ociImage {
	t.Helper()
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	entries := make(map[string][]byte)
	readTar(t, archive, func(h *tar.Header, content []byte) { entries[h.Name] = content })

	type descriptor struct {
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	parse := func(entry string, into any) {
		t.Helper()
		if err := json.Unmarshal(entries[entry], into); err != nil {
			t.Fatalf("%s in %s: %v", entry, path, err)
		}
	}
	blob := func(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	parse("index.json", &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%s has %d images", path, len(index.Manifests))
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	parse(blob(index.Manifests[0]), &manifest)
	image := ociImage{name: index.Manifests[0].Annotations["org.opencontainers.image.ref.name"], files: make(map[string]ociFile)}
	parse(blob(manifest.Config), &image)
	for _, layer := range manifest.Layers {
		image.size += layer.Size
		plain, err := gzip.NewReader(bytes.NewReader(entries[blob(layer)]))
		if err != nil {
			t.Fatalf("a layer of %s: %v", path, err)
		}
		readTar(t, plain, func(h *tar.Header, content []byte) {
			if h.Typeflag != tar.TypeDir {
				image.files["/"+strings.TrimPrefix(h.Name, "/")] = ociFile{h.Mode, content}
			}
		})
	}
	return image
}
