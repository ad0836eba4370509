// Package image keeps images: names, manifests, configurations; it pulls, loads, saves, imports, tags and removes them.
//
// # Words
//
// An image is one platform's: its id is the digest of its configuration, as Docker has it. A target is what a name points
// to: an image's manifest, or an index (Docker: manifest list) over the manifests of several platforms, of which any number
// may be here. A name is a normalized reference with a tag ("docker.io/library/ubuntu:latest") or with the digest under
// which a registry had it ("docker.io/library/ubuntu@sha256:…").
//
// # On disk
//
// The store is the index.json of the OCI image layout that package layer keeps: an entry for each name (annotations
// io.containerd.image.name and org.opencontainers.image.ref.name), and an entry without a name for each manifest that no name points to
// itself. Manifests, configurations and layers are blobs. index.json is replaced in one step, after all that it names is
// durable, and before the caller is told (docs/decisions/0011-names-in-index-json.md).
//
// # Laws
//
//   - An image in the store is complete: its blobs are there and verified, its layers unpacked.
//   - Readers never wait: they see the last committed state, which is immutable.
//   - A blob or layer that a pull has brought is not collected before the pull ended (layer.Hold).
package image
