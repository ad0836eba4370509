// Package image keeps images: names, manifests, configurations; it pulls, loads, saves, imports, tags and removes them.
package image
